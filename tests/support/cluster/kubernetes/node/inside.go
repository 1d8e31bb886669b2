package main

// What happens inside a container: this program run again, in new namespaces, makes the file system and becomes the container's first
// process; or it enters a container's namespaces for exec.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	runCommand  = "run-container"
	execCommand = "exec-container"

	specFD, statusFD = 3, 4 // beside the standard ones
	cannotStart      = 128  // as container runtimes have it
)

// One program and its privileges.
type process struct {
	Args         []string
	Env          []string
	Dir          string
	UID, GID     uint32
	Groups       []uint32
	Capabilities []uintptr // what it may have at most
	NoNewPrivs   bool
	TTY          bool
}

// A container, for run-container.
type containerSpec struct {
	Hostname     string
	Network      string // the namespace's path; empty: the node's own
	Stage        string // an empty folder to make the file system in
	Files        map[string]string
	Binds        []bind
	ReadOnlyRoot bool
	Process      process
}

type bind struct {
	From, To string
	ReadOnly bool
}

// An exec, for exec-container.
type execSpec struct {
	Target  int // a process in the namespaces to enter
	Process process
}

func readSpec(spec any) {
	file := os.NewFile(specFD, "spec")
	text, err := io.ReadAll(file)
	if err == nil {
		err = json.Unmarshal(text, spec)
	}
	if err != nil {
		fail(err)
	}
	file.Close()
}

// Says why to the node, and ends.
func fail(err error) {
	fmt.Fprint(os.NewFile(statusFD, "status"), err)
	os.Exit(cannotStart)
}

func runContainer() {
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(statusFD)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGWINCH)
	var spec containerSpec
	readSpec(&spec)
	if err := spec.enter(); err != nil {
		fail(err)
	}
	pid, err := spec.Process.start(syscall.SIGKILL)
	if err != nil {
		fail(err)
	}
	unix.Close(statusFD)
	go forward(pid, signals)
	waitFor(pid)
}

func execContainer() {
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(statusFD)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	var spec execSpec
	readSpec(&spec)
	if err := enterNamespaces(spec.Target); err != nil {
		fail(err)
	}
	pid, err := spec.Process.start(0) // a parent outside its process namespace is none to Go, which would have it killed
	if err != nil {
		fail(err)
	}
	unix.Close(statusFD)
	go func() {
		<-signals
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}()
	waitFor(pid)
}

func enterNamespaces(target int) error {
	kinds := []string{"net", "uts", "ipc", "pid", "mnt"}
	files := make([]int, len(kinds))
	for i, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", target, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("the container has ended: %w", err)
		}
		files[i] = fd
	}
	// A mount namespace is entered only by a thread that shares its folders with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for i, fd := range files {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter %s: %w", kinds[i], err)
		}
	}
	return nil
}

// Starts the program from this thread, whose namespaces and limits it inherits.
func (p process) start(withParent syscall.Signal) (int, error) {
	os.Clearenv()
	for _, pair := range p.Env {
		if name, value, ok := strings.Cut(pair, "="); ok {
			os.Setenv(name, value)
		}
	}
	if err := unix.Chdir(p.Dir); err != nil {
		return 0, fmt.Errorf("working directory %s: %w", p.Dir, err)
	}
	program, err := exec.LookPath(p.Args[0])
	if err != nil {
		return 0, err
	}
	if err := p.limit(); err != nil {
		return 0, err
	}
	return syscall.ForkExec(program, p.Args, &syscall.ProcAttr{
		Env:   p.Env,
		Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{
			Setsid: true, Setctty: p.TTY, Pdeathsig: withParent,
			Credential: &syscall.Credential{Uid: p.UID, Gid: p.GID, Groups: p.Groups},
		},
	})
}

func (p process) limit() error {
	keep := map[uintptr]bool{}
	for _, capability := range p.Capabilities {
		keep[capability] = true
	}
	for capability := uintptr(0); capability <= unix.CAP_LAST_CAP; capability++ {
		if keep[capability] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if p.NoNewPrivs {
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	return nil
}

func forward(pid int, signals <-chan os.Signal) {
	for s := range signals {
		_ = syscall.Kill(pid, s.(syscall.Signal))
	}
}

// Adopts orphans; ends as the program ends.
func waitFor(pid int) {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			os.Exit(cannotStart)
		}
		if ended != pid {
			continue
		}
		if status.Signaled() {
			os.Exit(128 + int(status.Signal()))
		}
		os.Exit(status.ExitStatus())
	}
}

// The process that a container's first one started, by its id here; 0 where it has none yet.
func childOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child := 0
	_, _ = fmt.Sscanf(string(text), "%d", &child)
	return child
}

func containerID(pid int) string { return "process://" + strconv.Itoa(pid) }
