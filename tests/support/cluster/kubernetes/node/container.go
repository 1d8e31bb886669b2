package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type role int

const (
	initRole role = iota
	sidecarRole
	mainRole
)

const (
	firstBackOff = 500 * time.Millisecond
	lastBackOff  = 10 * time.Second
	steadyAfter  = time.Minute // who ran this long starts over with the first
)

// A problem before any process: the container waits.
type waitingError struct {
	reason string
	err    error
}

func (e waitingError) Error() string { return e.err.Error() }

// One container of a pod, over all its runs.
type container struct {
	pod  *pod
	spec *v1.Container
	role role

	firstRun     chan struct{} // closed when it has run, or failed to, postStart hook included
	firstStarted chan struct{} // closed when its startup probe has passed
	done         chan struct{} // closed when it will not run again
	onceRun      sync.Once
	onceStarted  sync.Once

	tried bool // by the pod's goroutine alone

	mu       sync.Mutex
	state    v1.ContainerState
	last     v1.ContainerState
	restarts int32
	runs     int
	started  bool
	ready    bool
	id       string
	current  *instance
	why      string // it is being killed, if not for its pod's end
}

func newContainer(p *pod, spec *v1.Container, r role, before []v1.ContainerStatus) *container {
	c := &container{
		pod: p, spec: spec, role: r,
		firstRun: make(chan struct{}), firstStarted: make(chan struct{}), done: make(chan struct{}),
	}
	c.state.Waiting = &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if r != initRole && len(p.latest.Spec.InitContainers) > 0 {
		c.state.Waiting.Reason = "PodInitializing"
	}
	// Another process of this node may have run it before.
	for _, status := range before {
		if status.Name == spec.Name && (status.State.Running != nil || status.State.Terminated != nil) {
			c.restarts = status.RestartCount + 1
			c.last.Terminated = &v1.ContainerStateTerminated{ExitCode: 255, Reason: "Unknown", ContainerID: status.ContainerID}
		}
	}
	return c
}

// Runs it, again and again as its policy says, until the pod is not wanted.
func (c *container) loop() {
	defer close(c.done)
	delay := firstBackOff
	for c.pod.wanted.Err() == nil {
		began := time.Now()
		err := c.runOnce()
		c.onceRun.Do(func() { close(c.firstRun) })
		var waits waitingError
		if errors.As(err, &waits) {
			c.wait(waits.reason, waits.Error())
		} else if c.pod.wanted.Err() != nil || !c.runsAgain() {
			return
		} else {
			if time.Since(began) > steadyAfter {
				delay = firstBackOff
			}
			c.backOff(delay)
		}
		sleep(c.pod.wanted, delay)
		delay = min(2*delay, lastBackOff)
	}
}

func (c *container) runsAgain() bool {
	policy := c.pod.object().Spec.RestartPolicy
	switch {
	case c.role == sidecarRole:
		return true
	case c.role == initRole && policy == v1.RestartPolicyAlways:
		policy = v1.RestartPolicyOnFailure
	}
	return policy == v1.RestartPolicyAlways || policy == v1.RestartPolicyOnFailure && !c.succeeded()
}

func (c *container) succeeded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

func (c *container) wait(reason, message string) {
	c.mu.Lock()
	same := c.state.Waiting != nil && c.state.Waiting.Message == message
	if c.state.Terminated != nil {
		c.last = c.state
	}
	c.state = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
	c.mu.Unlock()
	if !same {
		log.Printf("%s %s: %s: %s", c.pod.key(), c.spec.Name, reason, message)
		c.pod.event(v1.EventTypeWarning, reason, "container %s: %s", c.spec.Name, message)
	}
	c.pod.changed()
}

func (c *container) backOff(delay time.Duration) {
	c.mu.Lock()
	c.last = c.state
	message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", delay, c.spec.Name, c.pod.key())
	c.state = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: message}}
	c.mu.Unlock()
	c.pod.event(v1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s", c.spec.Name)
	c.pod.changed()
}

// One run, from the start to the end of its processes.
func (c *container) runOnce() error {
	spec, err := c.containerSpec()
	if err != nil {
		return err
	}
	output, err := openLog(c.pod.logs, c.spec.Name)
	if err != nil {
		return waitingError{"RunContainerError", err}
	}
	defer output.close()
	if err := os.MkdirAll(spec.Stage, 0o755); err != nil {
		return waitingError{"RunContainerError", err}
	}
	made, err := startInstance(*spec, output)
	if err != nil {
		c.failedToStart(err)
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.startedRun(made)
	if c.afterStart(made) {
		c.onceRun.Do(func() { close(c.firstRun) })
		c.probe(ctx, made)
	}
	<-made.exited
	cancel()
	c.endedRun(made)
	return nil
}

func (c *container) containerSpec() (*containerSpec, error) {
	object := c.pod.object()
	image, ok := c.image()
	if !ok {
		return nil, waitingError{"ErrImagePull", fmt.Errorf("image %q: the node has no program for it", c.spec.Image)}
	}
	full, own, err := containerEnvironment(c.spec, image, c.pod.services(), c.pod)
	if err != nil {
		return nil, waitingError{"CreateContainerConfigError", err}
	}
	name := hostname(object)
	made := &containerSpec{
		Hostname: name, Network: c.pod.networkPath(),
		Stage: filepath.Join(c.pod.folder, "stage", c.spec.Name),
		Files: map[string]string{
			"/etc/resolv.conf": resolvConf(object, c.pod.node.dns, c.pod.node.clusterDomain),
			"/etc/hosts":       hostsFile(object, c.pod.ip, c.pod.node.clusterDomain),
			"/etc/hostname":    name + "\n",
		},
	}
	if err := applySecurity(object, c.spec, made); err != nil {
		return nil, waitingError{"CreateContainerConfigError", err}
	}
	if made.Binds, err = c.pod.binds(object, c.spec, image, &own); err != nil {
		return nil, waitingError{"CreateContainerConfigError", err}
	}
	if _, set := full.values["HOME"]; !set {
		full.set("HOME", home(made.Process.UID))
	}
	full.set("HOSTNAME", name)
	made.Process.Env = full.pairs()
	made.Process.Args = c.arguments(image, &own)
	if len(made.Process.Args) == 0 {
		return nil, waitingError{"CreateContainerError", errors.New("no command specified")}
	}
	made.Process.Dir = "/"
	if c.spec.WorkingDir != "" {
		made.Process.Dir = c.spec.WorkingDir
	}
	return made, nil
}

func (c *container) arguments(image image, own *environment) []string {
	command, arguments := image.Entrypoint, c.spec.Args
	if len(c.spec.Command) > 0 {
		command = nil
		arguments = append(append([]string(nil), c.spec.Command...), c.spec.Args...)
	}
	all := append([]string(nil), command...)
	linked := map[string]string{"KUBERNETES_SERVICE_HOST": c.pod.node.api.Spec.ClusterIP, "KUBERNETES_SERVICE_PORT": strconv.Itoa(int(c.pod.node.api.Spec.Ports[0].Port))}
	for _, argument := range arguments {
		all = append(all, own.expand(argument, linked))
	}
	return all
}

func (c *container) image() (image, bool) {
	images := c.pod.node.images
	if found, ok := images[c.spec.Image]; ok {
		return found, true
	}
	name, _, _ := strings.Cut(path.Base(c.spec.Image), "@")
	name, _, _ = strings.Cut(name, ":")
	found, ok := images[name]
	return found, ok
}

func (c *container) failedToStart(err error) {
	now := metav1.Now()
	c.mu.Lock()
	c.countRun()
	c.state = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		ExitCode: cannotStart, Reason: "StartError", Message: err.Error(), StartedAt: now, FinishedAt: now,
	}}
	c.mu.Unlock()
	log.Printf("%s %s: %v", c.pod.key(), c.spec.Name, err)
	c.pod.event(v1.EventTypeWarning, "Failed", "container %s: %v", c.spec.Name, err)
	c.pod.changed()
}

// A run that is not the first is a restart.
func (c *container) countRun() {
	if c.runs > 0 {
		c.restarts++
	}
	c.runs++
}

func (c *container) startedRun(made *instance) {
	c.mu.Lock()
	c.countRun()
	c.state = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(made.began)}}
	c.id, c.current, c.why = containerID(made.main), made, ""
	c.started, c.ready = false, false
	c.mu.Unlock()
	log.Printf("%s %s: started, process %d", c.pod.key(), c.spec.Name, made.main)
	c.pod.event(v1.EventTypeNormal, "Started", "Started container %s", c.spec.Name)
	c.pod.changed()
}

func (c *container) endedRun(made *instance) {
	reason := "Completed"
	if made.code != 0 {
		reason = "Error"
	}
	c.mu.Lock()
	c.state = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		ExitCode: int32(made.code), Reason: reason, Message: c.why, ContainerID: c.id,
		StartedAt: metav1.NewTime(made.began), FinishedAt: metav1.NewTime(made.ended),
	}}
	c.started, c.ready, c.current = false, false, nil
	c.mu.Unlock()
	log.Printf("%s %s: exit code %d", c.pod.key(), c.spec.Name, made.code)
	c.pod.changed()
}

// The postStart hook; whether the run goes on.
func (c *container) afterStart(made *instance) bool {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil {
		return true
	}
	// The container may end during the hook: then the hook fails.
	err := c.hook(made, c.spec.Lifecycle.PostStart, time.Hour)
	if err == nil {
		return true
	}
	if made.running() {
		c.pod.event(v1.EventTypeWarning, "FailedPostStartHook", "container %s: %v", c.spec.Name, err)
		c.killRun(made, "PostStartHook failed: "+err.Error())
	}
	return false
}

func (c *container) hook(made *instance, handler *v1.LifecycleHandler, limit time.Duration) error {
	switch {
	case handler.Exec != nil:
		output, err := made.command(handler.Exec.Command, limit)
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
	case handler.HTTPGet != nil:
		ok, message, err := c.httpGet(handler.HTTPGet, limit)
		if err != nil || !ok {
			return fmt.Errorf("hook: %s: %w", message, err)
		}
	case handler.Sleep != nil:
		select {
		case <-made.exited:
		case <-time.After(min(limit, time.Duration(handler.Sleep.Seconds)*time.Second)):
		}
	}
	return nil
}

// Ends one run, which may be followed by the next: a probe or hook failed.
func (c *container) killRun(made *instance, why string) {
	c.mu.Lock()
	c.why = why
	c.mu.Unlock()
	log.Printf("%s %s: %s", c.pod.key(), c.spec.Name, why)
	c.pod.event(v1.EventTypeNormal, "Killing", "container %s: %s", c.spec.Name, why)
	grace := int64(30)
	if own := c.pod.object().Spec.TerminationGracePeriodSeconds; own != nil {
		grace = *own
	}
	limit, cancel := context.WithTimeout(c.pod.alive, time.Duration(grace)*time.Second)
	defer cancel()
	c.end(limit, made)
}

// Ends the container for good: its hook, SIGTERM, and SIGKILL once the context has ended.
func (c *container) stop(limit context.Context) {
	if !c.tried {
		return
	}
	for {
		c.mu.Lock()
		made := c.current
		c.mu.Unlock()
		if made != nil {
			c.end(limit, made)
		}
		select {
		case <-c.done:
			return
		case <-time.After(20 * time.Millisecond): // it is just being started
		}
	}
}

func (c *container) end(limit context.Context, made *instance) {
	hooked := make(chan struct{})
	go func() {
		defer close(hooked)
		if hook := c.spec.Lifecycle; hook != nil && hook.PreStop != nil && limit.Err() == nil {
			if err := c.hook(made, hook.PreStop, time.Hour); err != nil {
				c.pod.event(v1.EventTypeWarning, "FailedPreStopHook", "container %s: %v", c.spec.Name, err)
			}
		}
	}()
	select {
	case <-hooked:
		made.signal(syscall.SIGTERM)
	case <-limit.Done():
	case <-made.exited:
	}
	select {
	case <-limit.Done():
		made.signal(syscall.SIGKILL)
	case <-made.exited:
	}
	<-made.exited
}
