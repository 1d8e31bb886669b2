package main

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a pod's status is made from.
type snapshot struct {
	object       *v1.Pod
	ip, hostIP   string
	sandboxReady bool
	since        *metav1.Time
	over         v1.PodPhase // it has ended so; empty while it lives
	inits, mains []v1.ContainerStatus
	now          metav1.Time
}

func (p *pod) status() v1.PodStatus {
	p.mu.Lock()
	s := snapshot{
		object: p.latest, ip: p.ip, hostIP: p.node.gateway, sandboxReady: p.ready, since: p.since, over: p.over, now: metav1.Now(),
	}
	p.mu.Unlock()
	s.inits, s.mains = p.containerStatuses()
	return s.status()
}

func (p *pod) containerStatuses() (inits, mains []v1.ContainerStatus) {
	for _, c := range p.containers {
		if status := c.status(); c.role == mainRole {
			mains = append(mains, status)
		} else {
			inits = append(inits, status)
		}
	}
	return inits, mains
}

func (c *container) status() v1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	started := c.started
	return v1.ContainerStatus{
		Name: c.spec.Name, State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(), RestartCount: c.restarts,
		// An init container is ready when it is done.
		Ready: c.ready || c.role == initRole && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0,
		Image: c.spec.Image, ImageID: c.spec.Image, ContainerID: c.id, Started: &started,
	}
}

// How a pod whose containers have all ended, ended.
func (p *pod) outcome() v1.PodPhase {
	_, mains := p.containerStatuses()
	for _, status := range mains {
		if status.State.Terminated == nil || status.State.Terminated.ExitCode != 0 {
			return v1.PodFailed
		}
	}
	return v1.PodSucceeded
}

func (s snapshot) status() v1.PodStatus {
	status := *s.object.Status.DeepCopy()
	status.ObservedGeneration = s.object.Generation
	status.Phase = s.phase()
	status.StartTime = s.since
	status.HostIP, status.HostIPs = s.hostIP, []v1.HostIP{{IP: s.hostIP}}
	if s.ip != "" {
		status.PodIP, status.PodIPs = s.ip, []v1.PodIP{{IP: s.ip}}
	}
	status.InitContainerStatuses, status.ContainerStatuses = s.inits, s.mains
	for _, condition := range s.conditions(status.Phase) {
		setCondition(&status, condition, s.now)
	}
	return status
}

func (s snapshot) phase() v1.PodPhase {
	if s.over != "" {
		return s.over
	}
	if !s.initialized() {
		return v1.PodPending
	}
	for _, c := range s.mains {
		if c.State.Waiting != nil && c.LastTerminationState.Terminated == nil {
			return v1.PodPending
		}
	}
	return v1.PodRunning
}

func (s snapshot) initialized() bool {
	for i, c := range s.inits {
		if isSidecar(&s.object.Spec.InitContainers[i]) {
			if c.Started == nil || !*c.Started {
				// One that restarts later does not undo it.
				if c.LastTerminationState.Terminated == nil || !s.mainsTried() {
					return false
				}
			}
		} else if !c.Ready {
			return false
		}
	}
	return true
}

func (s snapshot) mainsTried() bool {
	return slices.ContainsFunc(s.mains, func(c v1.ContainerStatus) bool { return c.ContainerID != "" })
}

func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

func (s snapshot) conditions(phase v1.PodPhase) []v1.PodCondition {
	yes := func(kind v1.PodConditionType, is bool, reason, message string) v1.PodCondition {
		if is {
			return v1.PodCondition{Type: kind, Status: v1.ConditionTrue, ObservedGeneration: s.object.Generation}
		}
		return v1.PodCondition{Type: kind, Status: v1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: s.object.Generation}
	}
	unready := s.unready()
	ready, reason := len(unready) == 0, "ContainersNotReady"
	message := fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	if phase == v1.PodSucceeded || phase == v1.PodFailed {
		ready, reason, message = false, "PodCompleted", ""
		if phase == v1.PodFailed {
			reason = "PodFailed"
		}
	}
	gates := s.closedGates()
	podReady := yes(v1.PodReady, ready && len(gates) == 0, reason, message)
	if ready && len(gates) > 0 {
		podReady.Reason, podReady.Message = "ReadinessGatesNotReady", strings.Join(gates, ", ")
	}
	return []v1.PodCondition{
		yes(v1.PodScheduled, true, "", ""),
		yes(v1.PodReadyToStartContainers, s.sandboxReady, "", ""),
		yes(v1.PodInitialized, s.initialized() || phase == v1.PodSucceeded, "ContainersNotInitialized", "init containers have not completed"),
		yes(v1.ContainersReady, ready, reason, message),
		podReady,
	}
}

// Containers that keep the pod from being ready, sidecars among them.
func (s snapshot) unready() []string {
	var names []string
	for i, c := range s.inits {
		if !c.Ready && isSidecar(&s.object.Spec.InitContainers[i]) {
			names = append(names, c.Name)
		}
	}
	for _, c := range s.mains {
		if !c.Ready {
			names = append(names, c.Name)
		}
	}
	return names
}

func (s snapshot) closedGates() []string {
	var closed []string
	for _, gate := range s.object.Spec.ReadinessGates {
		is := func(c v1.PodCondition) bool { return c.Type == gate.ConditionType && c.Status == v1.ConditionTrue }
		if !slices.ContainsFunc(s.object.Status.Conditions, is) {
			closed = append(closed, string(gate.ConditionType))
		}
	}
	return closed
}

func setCondition(status *v1.PodStatus, condition v1.PodCondition, now metav1.Time) {
	condition.LastTransitionTime = now
	for i, known := range status.Conditions {
		if known.Type == condition.Type {
			if known.Status == condition.Status {
				condition.LastTransitionTime = known.LastTransitionTime
			}
			status.Conditions[i] = condition
			return
		}
	}
	status.Conditions = append(status.Conditions, condition)
}
