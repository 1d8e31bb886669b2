package main

import (
	"context"
	"fmt"
	"log"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
)

var (
	httpProber = httpprobe.New(false)
	tcpProber  = tcpprobe.New()
	grpcProber = grpcprobe.New()
)

// Starts a run's probes; they end with the context.
func (c *container) probe(ctx context.Context, made *instance) {
	go func() {
		if c.spec.StartupProbe != nil && !c.startup(ctx, made) {
			return
		}
		c.markStarted(made)
		if c.spec.LivenessProbe != nil {
			go c.liveness(ctx, made)
		}
		if c.spec.ReadinessProbe != nil {
			c.readiness(ctx, made)
		}
	}()
}

func (c *container) markStarted(made *instance) {
	c.mu.Lock()
	if c.current == made {
		c.started = true
		c.ready = c.spec.ReadinessProbe == nil
	}
	c.mu.Unlock()
	c.onceStarted.Do(func() { close(c.firstStarted) })
	c.pod.changed()
}

func (c *container) startup(ctx context.Context, made *instance) bool {
	passed := false
	c.watch(ctx, made, "Startup", c.spec.StartupProbe, func(ok bool) bool {
		passed = ok
		if !ok {
			c.killRun(made, "Container "+c.spec.Name+" failed startup probe, will be restarted")
		}
		return false
	})
	return passed
}

func (c *container) liveness(ctx context.Context, made *instance) {
	c.watch(ctx, made, "Liveness", c.spec.LivenessProbe, func(ok bool) bool {
		// A pod that is being ended is not also ended by its probe.
		if !ok && c.pod.wanted.Err() == nil {
			c.killRun(made, "Container "+c.spec.Name+" failed liveness probe, will be restarted")
			return false
		}
		return true
	})
}

func (c *container) readiness(ctx context.Context, made *instance) {
	c.watch(ctx, made, "Readiness", c.spec.ReadinessProbe, func(ok bool) bool {
		c.mu.Lock()
		changed := c.current == made && c.ready != ok
		if changed {
			c.ready = ok
		}
		c.mu.Unlock()
		if changed {
			c.pod.changed()
		}
		return true
	})
}

// Probes as often as the probe says. The function is told each result that enough in a row agree on, and whether to go on is its answer.
func (c *container) watch(ctx context.Context, made *instance, kind string, p *v1.Probe, tell func(bool) bool) {
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	sleep(ctx, time.Duration(p.InitialDelaySeconds)*time.Second)
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	row, last := int32(0), false
	for ctx.Err() == nil {
		ok, message := c.attempt(made, p)
		if ctx.Err() != nil {
			return
		}
		if !ok {
			c.pod.event(v1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", kind, message)
		}
		if row == 0 || ok != last {
			row, last = 0, ok
		}
		row++
		enough := max(p.FailureThreshold, 1)
		if ok {
			enough = max(p.SuccessThreshold, 1)
		}
		if row >= enough && !tell(ok) {
			return
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

func (c *container) attempt(made *instance, p *v1.Probe) (bool, string) {
	limit := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	var ok bool
	var message string
	var err error
	switch {
	case p.Exec != nil:
		message, err = made.command(p.Exec.Command, limit)
		ok = err == nil
	case p.HTTPGet != nil:
		ok, message, err = c.httpGet(p.HTTPGet, limit)
	case p.TCPSocket != nil:
		ok, message, err = c.tcpSocket(p.TCPSocket, limit)
	case p.GRPC != nil:
		service := ""
		if p.GRPC.Service != nil {
			service = *p.GRPC.Service
		}
		var result probe.Result
		result, message, err = grpcProber.Probe(c.pod.ip, service, int(p.GRPC.Port), limit)
		ok = result == probe.Success
	default:
		log.Printf("%s %s: a probe of no known kind", c.pod.key(), c.spec.Name)
	}
	if err != nil {
		message = fmt.Sprintf("%v %s", err, message)
	}
	return ok && err == nil, message
}

func (c *container) httpGet(action *v1.HTTPGetAction, limit time.Duration) (bool, string, error) {
	request, err := httpprobe.NewRequestForHTTPGetAction(action, c.spec, c.pod.ip, "probe")
	if err != nil {
		return false, "", err
	}
	result, message, err := httpProber.Probe(request, limit)
	return result == probe.Success || result == probe.Warning, message, err
}

func (c *container) tcpSocket(action *v1.TCPSocketAction, limit time.Duration) (bool, string, error) {
	port, err := c.port(action.Port)
	if err != nil {
		return false, "", err
	}
	host := action.Host
	if host == "" {
		host = c.pod.ip
	}
	result, message, err := tcpProber.Probe(host, port, limit)
	return result == probe.Success, message, err
}

func (c *container) port(given intstr.IntOrString) (int, error) {
	if given.Type == intstr.Int {
		return given.IntValue(), nil
	}
	for _, p := range c.spec.Ports {
		if p.Name == given.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	return strconv.Atoi(given.StrVal)
}
