package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podutil "k8s.io/kubernetes/pkg/util/pod"
)

const retryAfter = time.Second

// One pod of this node, from its first sight to the end of its object.
type pod struct {
	node            *node
	namespace, name string
	uid             types.UID
	folder, logs    string
	containers      []*container // in the order of their start
	ended           chan struct{}

	// Three ends, each before the next: nothing is started any more; it is being deleted; processes get no more time.
	wanted, deleted, alive context.Context
	unwant, del, kill      context.CancelFunc

	stale   chan struct{} // volumes are to be written anew
	dirty   chan struct{} // the status is
	writing sync.Mutex    // who holds it writes volumes
	tokens  map[string]token

	mu        sync.Mutex
	latest    *v1.Pod
	ip        string
	ready     bool // of the sandbox
	since     *metav1.Time
	forgotten bool // its object is gone, or is to stay as it is
	over      v1.PodPhase
}

func newPod(n *node, object *v1.Pod) *pod {
	now := metav1.Now()
	p := &pod{
		node: n, namespace: object.Namespace, name: object.Name, uid: object.UID, latest: object, since: &now,
		folder: filepath.Join(n.podsFolder(), string(object.UID)),
		logs:   filepath.Join(n.root, "logs", fmt.Sprintf("%s_%s_%s", object.Namespace, object.Name, object.UID)),
		ended:  make(chan struct{}), stale: make(chan struct{}, 1), dirty: make(chan struct{}, 1), tokens: map[string]token{},
	}
	if object.Status.StartTime != nil {
		p.since = object.Status.StartTime
	}
	p.alive, p.kill = context.WithCancel(context.Background())
	p.deleted, p.del = context.WithCancel(p.alive)
	p.wanted, p.unwant = context.WithCancel(p.deleted)
	for i := range object.Spec.InitContainers {
		c := &object.Spec.InitContainers[i]
		role := initRole
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			role = sidecarRole
		}
		p.containers = append(p.containers, newContainer(p, c, role, object.Status.InitContainerStatuses))
	}
	for i := range object.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &object.Spec.Containers[i], mainRole, object.Status.ContainerStatuses))
	}
	n.addresses.skip(object.Status.PodIP)
	return p
}

func (p *pod) key() string { return p.namespace + "/" + p.name }

func (p *pod) object() *v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

func (p *pod) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.forgotten || p.latest.DeletionTimestamp != nil
}

// The object changed.
func (p *pod) update(object *v1.Pod) {
	p.mu.Lock()
	changed := !sameMeta(p.latest, object)
	p.latest = object
	p.mu.Unlock()
	if changed {
		p.refresh()
		p.changed()
	}
	if object.DeletionTimestamp != nil {
		grace := int64(0)
		if object.DeletionGracePeriodSeconds != nil {
			grace = *object.DeletionGracePeriodSeconds
		}
		time.AfterFunc(time.Duration(grace)*time.Second, p.kill)
		p.del()
	}
}

func sameMeta(a, b *v1.Pod) bool {
	return a.Generation == b.Generation && fmt.Sprint(a.Labels, a.Annotations) == fmt.Sprint(b.Labels, b.Annotations)
}

// The object is gone: so are its processes.
func (p *pod) gone() {
	p.mu.Lock()
	p.forgotten = true
	p.mu.Unlock()
	p.kill()
}

// The node ends; the object stays as it is.
func (p *pod) abandon() { p.gone() }

func (p *pod) refresh() { nudge(p.stale) }
func (p *pod) changed() { nudge(p.dirty) }

func nudge(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

func (p *pod) event(kind, reason, format string, arguments ...any) {
	p.node.events.Eventf(p.object(), kind, reason, format, arguments...)
}

// The pod's whole life.
func (p *pod) run() {
	defer close(p.ended)
	defer p.kill()
	reports, stopReports := context.WithCancel(context.Background())
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		p.report(reports)
	}()
	if phase := p.object().Status.Phase; phase != v1.PodSucceeded && phase != v1.PodFailed {
		p.live()
		p.setOver(p.outcome())
	} else {
		p.setOver(phase)
		stopReports() // what an earlier node said of it stands
	}
	if p.wanted.Err() == nil || p.deleted.Err() == nil {
		p.changed()
		<-p.deleted.Done() // it ended by itself: the object is kept until someone deletes it
	}
	stopReports()
	<-reported
	p.deleteObject()
}

func (p *pod) live() {
	if err := p.setUp(); err == nil {
		volumes, stop := context.WithCancel(p.alive)
		go p.keepVolumes(volumes)
		p.runContainers()
		p.terminate()
		stop()
	}
	p.cleanUp()
}

func (p *pod) setOver(phase v1.PodPhase) {
	p.mu.Lock()
	p.over = phase
	p.mu.Unlock()
	p.changed()
}

// Makes the sandbox and the volumes, as often as it takes.
func (p *pod) setUp() error {
	p.changed()
	for _, step := range []struct {
		reason string
		do     func() error
	}{{"FailedCreatePodSandBox", p.makeSandbox}, {"FailedMount", p.writeVolumes}} {
		last := ""
		for {
			if p.wanted.Err() != nil {
				return p.wanted.Err()
			}
			err := step.do()
			if err == nil {
				break
			}
			if err.Error() != last {
				last = err.Error()
				log.Printf("%s: %v", p.key(), err)
				p.event(v1.EventTypeWarning, step.reason, "%v", err)
			}
			select {
			case <-p.wanted.Done():
			case <-p.stale:
			case <-time.After(retryAfter):
			}
		}
	}
	return nil
}

func (p *pod) network() network {
	text := string(p.uid)
	return network{
		name: p.node.netnsPrefix + text, link: p.node.netnsPrefix + strings.ReplaceAll(text, "-", "")[:11],
		ip: p.ip, bits: p.node.addresses.prefix.Bits(), bridge: p.node.bridge, gate: p.node.gateway,
	}
}

func (p *pod) networkPath() string {
	if p.object().Spec.HostNetwork {
		return ""
	}
	return p.network().path()
}

func (p *pod) makeSandbox() error {
	if err := os.MkdirAll(p.folder, 0o755); err != nil {
		return err
	}
	object := p.object()
	address := p.node.gateway
	if !object.Spec.HostNetwork {
		if p.ip == "" {
			address = p.node.addresses.take().String()
		} else {
			address = p.ip
			_ = p.network().remove() // what an attempt before this left
		}
	}
	p.mu.Lock()
	p.ip = address
	p.mu.Unlock()
	if !object.Spec.HostNetwork {
		// A container without privileges may listen on any port, as with container runtimes.
		sysctls := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
		if pods := object.Spec.SecurityContext; pods != nil {
			for _, s := range pods.Sysctls {
				sysctls[s.Name] = s.Value
			}
		}
		if err := p.network().create(sysctls); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.ready = true
	p.mu.Unlock()
	p.changed()
	return nil
}

// Returns when all is done or the pod is not wanted any more.
func (p *pod) runContainers() {
	var mains []*container
	for _, c := range p.containers {
		if p.wanted.Err() != nil {
			return
		}
		c.tried = true
		go c.loop()
		switch c.role {
		case initRole:
			if !p.waitFor(c.done) || !c.succeeded() {
				return
			}
		case sidecarRole:
			p.waitFor(c.firstStarted, c.done)
		case mainRole:
			// The next is started after this one's postStart hook: istio-proxy holds the application that way.
			p.waitFor(c.firstRun, c.done)
			mains = append(mains, c)
		}
	}
	for _, c := range mains {
		p.waitFor(c.done)
	}
}

// Waits for one of one or two events; whether it came before the pod's end.
func (p *pod) waitFor(event <-chan struct{}, or ...<-chan struct{}) bool {
	other := event
	if len(or) > 0 {
		other = or[0]
	}
	select {
	case <-event:
	case <-other:
	case <-p.wanted.Done():
		return false
	}
	return true
}

// Ends what runs: the containers at once, then the sidecars, the last first.
func (p *pod) terminate() {
	object := p.object()
	byItself := p.wanted.Err() == nil
	p.unwant()
	limit, cancel := context.WithCancel(p.alive)
	defer cancel()
	if byItself && object.Spec.TerminationGracePeriodSeconds != nil {
		limit, cancel = context.WithTimeout(p.alive, time.Duration(*object.Spec.TerminationGracePeriodSeconds)*time.Second)
		defer cancel()
	}
	var ending sync.WaitGroup
	for _, c := range p.containers {
		if c.role != sidecarRole {
			ending.Go(func() { c.stop(limit) })
		}
	}
	ending.Wait()
	for i := len(p.containers) - 1; i >= 0; i-- {
		if p.containers[i].role == sidecarRole {
			p.containers[i].stop(limit)
		}
	}
}

// All processes have ended.
func (p *pod) cleanUp() {
	if p.ip != "" && !p.object().Spec.HostNetwork {
		if err := p.network().remove(); err != nil {
			log.Printf("%s: %v", p.key(), err)
		}
		if address, err := netip.ParseAddr(p.ip); err == nil {
			p.node.addresses.give(address)
		}
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := unmountBelow(p.folder); err != nil {
		log.Printf("%s: %v", p.key(), err)
	}
	if err := os.RemoveAll(p.folder); err != nil {
		log.Printf("%s: %v", p.key(), err)
	}
	p.mu.Lock()
	p.ready = false
	p.mu.Unlock()
}

// Writes the status whenever it changes; once more at the end.
func (p *pod) report(ctx context.Context) {
	last := p.object().Status
	for {
		select {
		case <-ctx.Done():
			p.writeStatus(&last)
			return
		case <-p.dirty:
			if !p.writeStatus(&last) {
				sleep(ctx, retryAfter)
				p.changed()
			}
		}
	}
}

func (p *pod) writeStatus(last *v1.PodStatus) bool {
	p.mu.Lock()
	forgotten := p.forgotten
	p.mu.Unlock()
	if forgotten {
		return true
	}
	status := p.status()
	_, _, _, err := podutil.PatchPodStatus(context.Background(), p.node.client, p.namespace, p.name, p.uid, *last, status)
	switch {
	case err == nil:
		*last = status
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone, or another of the same name
	default:
		log.Printf("%s: status: %v", p.key(), err)
		return false
	}
	return true
}

func (p *pod) deleteObject() {
	now := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.uid}}
	for {
		p.mu.Lock()
		forgotten := p.forgotten
		p.mu.Unlock()
		if forgotten {
			return
		}
		err := p.node.client.CoreV1().Pods(p.namespace).Delete(context.Background(), p.name, options)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		log.Printf("%s: delete: %v", p.key(), err)
		time.Sleep(retryAfter)
	}
}
