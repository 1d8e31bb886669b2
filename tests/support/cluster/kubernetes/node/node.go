package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

const leaseSeconds = 40

// All pods of one node.
type node struct {
	options
	client    kubernetes.Interface
	api       *v1.Service // the API server's real address, as the Service that containers are told of
	images    map[string]image
	addresses *addresses
	events    record.EventRecorder
	informers informers.SharedInformerFactory

	mu      sync.Mutex
	pods    map[types.UID]*pod
	binding map[types.UID]bool
	closing bool
}

func newNode(o options, client kubernetes.Interface, api *v1.Service, images map[string]image, a *addresses) *node {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &node{
		options: o, client: client, api: api, images: images, addresses: a,
		events:    broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "node", Host: o.name}),
		informers: informers.NewSharedInformerFactory(client, 0),
		pods:      map[types.UID]*pod{}, binding: map[types.UID]bool{},
	}
}

// The API server's address as the Service `kubernetes` would have it, had it that address.
func apiAddress(host string) (*v1.Service, error) {
	parsed, err := url.Parse(host)
	if err != nil {
		return nil, err
	}
	ip, port, err := net.SplitHostPort(parsed.Host)
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig's server %s: no port: %w", host, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault},
		Spec:       v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Name: "https", Port: int32(number), Protocol: v1.ProtocolTCP}}},
	}, nil
}

// Makes the Node object, ready; keeps its Lease until the context ends.
func (n *node) register(ctx context.Context) error {
	nodes := n.client.CoreV1().Nodes()
	made, err := nodes.Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{
		v1.LabelHostname: n.name, v1.LabelOSStable: runtime.GOOS, v1.LabelArchStable: runtime.GOARCH,
	}}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = nodes.Get(ctx, n.name, metav1.GetOptions{})
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	// Admission taints a new node as not ready; where no controller takes that back, DaemonSets would wait.
	if len(made.Spec.Taints) > 0 {
		patch := []byte(`{"spec":{"taints":null}}`)
		if made, err = nodes.Patch(ctx, n.name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
	}
	made.Status = n.nodeStatus()
	if _, err := nodes.UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	go n.renewLease(ctx)
	return nil
}

func (n *node) nodeStatus() v1.NodeStatus {
	host, port, _ := net.SplitHostPort(n.listen)
	number, _ := strconv.Atoi(port)
	now := metav1.Now()
	return v1.NodeStatus{
		Addresses:       []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: host}},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: int32(number)}},
		Capacity:        capacity(), Allocatable: capacity(),
		NodeInfo: v1.NodeSystemInfo{OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, KubeletVersion: "v1.34.4", ContainerRuntimeVersion: "process://1"},
		Conditions: []v1.NodeCondition{{
			Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "pods can run",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	}
}

func capacity() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU: *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI), v1.ResourceMemory: resource.MustParse("16Gi"),
		v1.ResourcePods: resource.MustParse("250"), v1.ResourceEphemeralStorage: resource.MustParse("50Gi"),
	}
}

func (n *node) renewLease(ctx context.Context) {
	leases := n.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	for seconds := int32(leaseSeconds); ctx.Err() == nil; sleep(ctx, leaseSeconds/4*time.Second) {
		lease, err := leases.Get(ctx, n.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			lease, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: n.name}}, metav1.CreateOptions{})
		}
		if err == nil {
			now := metav1.NowMicro()
			lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &n.name, &seconds, &now
			_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			log.Printf("lease: %v", err)
		}
	}
}

// Runs what the API server says until the context ends.
func (n *node) watch(ctx context.Context) error {
	core := n.informers.Core().V1()
	core.Services().Informer()
	pods := core.Pods().Informer()
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { n.onPod(ctx, o.(*v1.Pod)) },
		UpdateFunc: func(_, o any) { n.onPod(ctx, o.(*v1.Pod)) },
		DeleteFunc: n.onPodGone,
	}); err != nil {
		return err
	}
	poke := cache.ResourceEventHandlerFuncs{
		AddFunc: n.refreshNamespace, UpdateFunc: func(_, o any) { n.refreshNamespace(o) }, DeleteFunc: n.refreshNamespace,
	}
	for _, informer := range []cache.SharedIndexInformer{core.ConfigMaps().Informer(), core.Secrets().Informer()} {
		if _, err := informer.AddEventHandler(poke); err != nil {
			return err
		}
	}
	n.informers.Start(ctx.Done())
	<-ctx.Done()
	return nil
}

func (n *node) onPod(ctx context.Context, p *v1.Pod) {
	if p.Spec.NodeName == "" {
		n.bind(ctx, p)
		return
	}
	if p.Spec.NodeName != n.name {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known, ok := n.pods[p.UID]
	if !ok && !n.closing {
		known = newPod(n, p)
		n.pods[p.UID] = known
		go func() {
			known.run()
			n.forget(p.UID)
		}()
	}
	if known != nil {
		known.update(p)
	}
}

func (n *node) forget(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, uid)
}

func (n *node) onPodGone(o any) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	if p, ok := o.(*v1.Pod); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		if known := n.pods[p.UID]; known != nil {
			known.gone()
		}
	}
}

// There is no scheduler: every pod is this node's.
func (n *node) bind(ctx context.Context, p *v1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.DeletionTimestamp != nil || len(p.Spec.SchedulingGates) > 0 || n.binding[p.UID] {
		return
	}
	n.binding[p.UID] = true
	go func() {
		binding := &v1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
			Target:     v1.ObjectReference{Kind: "Node", Name: n.name},
		}
		for ctx.Err() == nil {
			err := n.client.CoreV1().Pods(p.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
			if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				break
			}
			log.Printf("%s/%s: bind: %v", p.Namespace, p.Name, err)
			sleep(ctx, time.Second)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.binding, p.UID)
	}()
}

// A ConfigMap or Secret changed: the pods beside it look at their volumes.
func (n *node) refreshNamespace(o any) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	object, ok := o.(metav1.Object)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.namespace == object.GetNamespace() {
			p.refresh()
		}
	}
}

func (n *node) find(namespace, name string) *pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found *pod
	for _, p := range n.pods {
		// A StatefulSet's new pod may have the name of one that is still ending.
		if p.namespace == namespace && p.name == name && (found == nil || !p.isGone()) {
			found = p
		}
	}
	return found
}

// Ends every pod's processes; their objects stay.
func (n *node) shutdown() {
	n.mu.Lock()
	n.closing = true
	pods := make([]*pod, 0, len(n.pods))
	for _, p := range n.pods {
		pods = append(pods, p)
	}
	n.mu.Unlock()
	for _, p := range pods {
		p.abandon()
	}
	for _, p := range pods {
		<-p.ended
	}
}

// A node that was killed took its pods' processes along; what is left are network namespaces, mounts and folders.
func (n *node) removeLeftovers() error {
	if err := removeNetworks(n.netnsPrefix); err != nil {
		return err
	}
	if err := unmountBelow(n.podsFolder()); err != nil {
		return err
	}
	return os.RemoveAll(n.podsFolder())
}

func (n *node) podsFolder() string { return filepath.Join(n.root, "pods") }

// Pods' addresses, from NET.1.1 up, each used again only when all have been.
type addresses struct {
	mu     sync.Mutex
	prefix netip.Prefix
	first  netip.Addr
	next   netip.Addr
	used   map[netip.Addr]bool
}

func newAddresses(prefix netip.Prefix) *addresses {
	start := prefix.Masked().Addr().As4()
	first := netip.AddrFrom4([4]byte{start[0], start[1], start[2] + 1, 1})
	return &addresses{prefix: prefix, first: first, next: first, used: map[netip.Addr]bool{}}
}

func (a *addresses) take() netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		taken := a.next
		a.next = taken.Next()
		// The last of the 256 networks is the harness's own.
		if bytes := a.next.As4(); !a.prefix.Contains(a.next) || bytes[2] == 255 {
			a.next = a.first
		}
		last := taken.As4()[3]
		if !a.used[taken] && last != 0 && last != 255 {
			a.used[taken] = true
			return taken
		}
	}
}

// An address that a pod had before this process started is not given to another soon.
func (a *addresses) skip(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if address, err := netip.ParseAddr(text); err == nil && address.Is4() && a.prefix.Contains(address) && !address.Less(a.next) && address.As4()[2] != 255 {
		a.next = address.Next()
	}
}

func (a *addresses) give(address netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, address)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
