package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criLogs "k8s.io/cri-client/pkg/logs"
	"k8s.io/klog/v2"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	rc "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	idle           = 4 * time.Hour
	streamCreation = 30 * time.Second
)

// What the API server asks of a node: exec, port-forward, logs.
func (n *node) serve(listener net.Listener) {
	mux := http.NewServeMux()
	for _, prefix := range []string{"{ns}/{pod}", "{ns}/{pod}/{uid}"} {
		mux.HandleFunc("/exec/"+prefix+"/{container}", n.serveExec)
	}
	mux.HandleFunc("/portForward/{ns}/{pod}", n.servePortForward)
	mux.HandleFunc("/portForward/{ns}/{pod}/{uid}", n.servePortForward)
	mux.HandleFunc("/containerLogs/{ns}/{pod}/{container}", n.serveLogs)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	server := &http.Server{Handler: mux, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, ErrorLog: log.Default()}
	log.Fatal(server.ServeTLS(listener, n.tlsCert, n.tlsKey))
}

func (n *node) chosen(w http.ResponseWriter, r *http.Request) *pod {
	p := n.find(r.PathValue("ns"), r.PathValue("pod"))
	if p == nil {
		http.Error(w, fmt.Sprintf("pod %s/%s: not on this node", r.PathValue("ns"), r.PathValue("pod")), http.StatusNotFound)
	}
	return p
}

func (p *pod) container(name string) *container {
	for _, c := range p.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (n *node) serveExec(w http.ResponseWriter, r *http.Request) {
	p := n.chosen(w, r)
	if p == nil {
		return
	}
	c := p.container(r.PathValue("container"))
	if c == nil {
		http.Error(w, "container not found: "+r.PathValue("container"), http.StatusNotFound)
		return
	}
	options, err := rc.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rc.ServeExec(w, r, executor{c}, p.name, p.uid, c.spec.Name, r.URL.Query()["command"], options, idle, streamCreation,
		remotecommandconsts.SupportedStreamingProtocols)
}

type executor struct {
	container *container
}

func (e executor) ExecInContainer(_ context.Context, _ string, _ types.UID, _ string, args []string, in io.Reader, out, errs io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	e.container.mu.Lock()
	made := e.container.current
	e.container.mu.Unlock()
	if made == nil {
		return fmt.Errorf("container %s is not running", e.container.spec.Name)
	}
	var err error
	if tty {
		err = withTerminal(made, args, in, out, resize)
	} else {
		err = withPipes(made, args, in, out, errs)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.Exited() {
			return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
		}
		return utilexec.CodeExitError{Err: err, Code: exitCode(err)}
	}
	return err
}

func withPipes(made *instance, args []string, in io.Reader, out, errs io.WriteCloser) error {
	cmd := &exec.Cmd{WaitDelay: time.Second}
	// A nil stream in a non-nil interface would be written to.
	if out != nil {
		cmd.Stdout = out
	}
	if errs != nil {
		cmd.Stderr = errs
	}
	if in != nil {
		// Not cmd.Stdin: the command may end before its client ends the input.
		write, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(write, in)
			write.Close()
		}()
	}
	if err := made.start(args, false, cmd); err != nil {
		return err
	}
	return ignoreDelay(cmd.Wait())
}

func ignoreDelay(err error) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

func withTerminal(made *instance, args []string, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	cmd := &exec.Cmd{Stdin: slave, Stdout: slave, Stderr: slave}
	err = made.start(args, true, cmd)
	slave.Close()
	if err != nil {
		return err
	}
	go func() {
		for size := range resize {
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(master, in) }()
	}
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(out, master)
		close(copied)
	}()
	err = cmd.Wait()
	select {
	case <-copied:
	case <-time.After(time.Second):
	}
	return err
}

func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func (n *node) servePortForward(w http.ResponseWriter, r *http.Request) {
	p := n.chosen(w, r)
	if p == nil {
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(p.alive)
	defer cancel() // the client is gone: so are its connections
	forwarder := forwarder{networkPath: p.networkPath(), ctx: ctx}
	portforward.ServePortForward(w, r, forwarder, p.name, p.uid, options, idle, streamCreation, []string{portforward.ProtocolV1Name})
}

type forwarder struct {
	networkPath string
	ctx         context.Context
}

// Carries one connection until both sides have ended. A WebSocket channel cannot be closed by half: there, either end ends both.
func (f forwarder) PortForward(_ context.Context, name string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	conn, err := dialInside(f.ctx, f.networkPath, port)
	if err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	stop := context.AfterFunc(f.ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	_, halves := stream.(httpstream.Stream)
	toPod, fromPod := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)
		if halves && err == nil {
			err = conn.CloseWrite()
		} else {
			conn.Close()
		}
		toPod <- err
	}()
	go func() {
		_, err := io.Copy(stream, conn)
		if halves {
			stream.Close()
		}
		fromPod <- err
	}()
	err = <-fromPod
	if halves && err == nil {
		<-toPod
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *node) serveLogs(w http.ResponseWriter, r *http.Request) {
	p := n.chosen(w, r)
	if p == nil {
		return
	}
	c := p.container(r.PathValue("container"))
	if c == nil {
		http.Error(w, "container not found: "+r.PathValue("container"), http.StatusNotFound)
		return
	}
	query := r.URL.Query()
	options := &v1.PodLogOptions{
		Follow: query.Get("follow") == "true", Timestamps: query.Get("timestamps") == "true", Previous: query.Get("previous") == "true",
		TailLines: number(query.Get("tailLines")), LimitBytes: number(query.Get("limitBytes")), SinceSeconds: number(query.Get("sinceSeconds")),
	}
	if at, err := time.Parse(time.RFC3339, query.Get("sinceTime")); err == nil {
		options.SinceTime = &metav1.Time{Time: at}
	}
	suffix := logSuffix
	if options.Previous {
		suffix = previousSuffix
	}
	path := filepath.Join(p.logs, c.spec.Name+suffix)
	if _, err := os.Stat(path); err != nil {
		http.Error(w, fmt.Sprintf("container %q in pod %q has no such log", c.spec.Name, p.name), http.StatusBadRequest)
		return
	}
	out := flushing{w, http.NewResponseController(w)}
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	logger := klog.Background()
	if err := criLogs.ReadLogs(r.Context(), &logger, path, id, criLogs.NewLogOptions(options, time.Now()), runStates{container: c}, out, out); err != nil {
		log.Printf("%s: logs: %v", p.key(), err)
	}
}

func number(text string) *int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	return &value
}

type flushing struct {
	io.Writer
	controller *http.ResponseController
}

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	_ = f.controller.Flush()
	return n, err
}

// What the log reader asks a container runtime: whether the run still writes.
type runStates struct {
	internalapi.RuntimeService
	container *container
}

func (s runStates) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	s.container.mu.Lock()
	defer s.container.mu.Unlock()
	state := runtimeapi.ContainerState_CONTAINER_EXITED
	if s.container.id == id && s.container.current != nil {
		state = runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{State: state}}, nil
}
