package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel ends a helper when the *thread* that started it ends: all are started by this one, which lasts as long as the node.
var spawner = func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for do := range work {
			do()
		}
	}()
	return work
}()

func spawn(cmd *exec.Cmd) error {
	started := make(chan error)
	spawner <- func() { started <- cmd.Start() }
	return <-started
}

// Starts this program again as a helper with its spec; returns once the helper's program runs, or the reason why it doesn't.
func startHelper(command string, spec any, cmd *exec.Cmd, clone uintptr) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	specRead, specWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		return errors.Join(err, specRead.Close(), specWrite.Close())
	}
	defer statusRead.Close()
	cmd.Path, cmd.Args = "/proc/self/exe", []string{"node", command}
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.ExtraFiles = []*os.File{specRead, statusWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: clone, Pdeathsig: syscall.SIGKILL, Setsid: true}
	err = spawn(cmd)
	specRead.Close()
	statusWrite.Close()
	if err != nil {
		specWrite.Close()
		return err
	}
	_, _ = specWrite.Write(text)
	specWrite.Close()
	problem, _ := io.ReadAll(statusRead)
	if len(problem) > 0 {
		_ = cmd.Wait()
		return errors.New(string(problem))
	}
	return nil
}

// A container's processes, from their start to the end of the last.
type instance struct {
	init   int // the container's first process
	main   int // the program itself
	began  time.Time
	exited chan struct{} // closed once all have ended and the log is complete
	code   int           // then
	ended  time.Time     // then
	spec   containerSpec
}

// Starts a container. Its output is for its own user, so that it may open /dev/stdout.
func startInstance(spec containerSpec, output *logFile) (*instance, error) {
	cmd := &exec.Cmd{}
	var readers []*os.File
	for _, stream := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer write.Close()
		if err := unix.Fchown(int(write.Fd()), int(spec.Process.UID), int(spec.Process.GID)); err != nil {
			return nil, err
		}
		*stream = write
		readers = append(readers, read)
	}
	copied := make(chan struct{}, 2)
	go output.copy("stdout", readers[0], copied)
	go output.copy("stderr", readers[1], copied)
	const clone = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	if err := startHelper(runCommand, spec, cmd, clone); err != nil {
		return nil, err
	}
	made := &instance{init: cmd.Process.Pid, began: time.Now(), exited: make(chan struct{}), spec: spec}
	made.main = childOf(made.init)
	go func() {
		err := cmd.Wait()
		<-copied
		<-copied
		made.code, made.ended = exitCode(err), time.Now()
		close(made.exited)
	}()
	return made, nil
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	case errors.As(err, &exit):
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	}
	log.Printf("wait: %v", err)
	return cannotStart
}

func (i *instance) running() bool {
	select {
	case <-i.exited:
		return false
	default:
		return true
	}
}

// A signal for the program; SIGKILL ends every process of the container.
func (i *instance) signal(s syscall.Signal) {
	if i.running() {
		_ = syscall.Kill(i.init, s)
	}
}

// An exec in the container, as its user. The caller waits for the command.
func (i *instance) start(args []string, tty bool, cmd *exec.Cmd) error {
	inside := i.spec.Process
	inside.Args, inside.TTY = args, tty
	if tty {
		inside.Env = append(append([]string(nil), inside.Env...), "TERM=xterm")
	}
	return startHelper(execCommand, execSpec{Target: i.init, Process: inside}, cmd, 0)
}

// A command in the container to its end, for probes and hooks.
func (i *instance) command(args []string, limit time.Duration) (string, error) {
	var output bytes.Buffer
	cmd := &exec.Cmd{Stdout: &output, Stderr: &output, WaitDelay: time.Second}
	if err := i.start(args, false, cmd); err != nil {
		return "", err
	}
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	err := cmd.Wait()
	if !timer.Stop() && err != nil {
		return output.String(), fmt.Errorf("command timed out after %s", limit)
	}
	return output.String(), err
}
