package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const netnsFolder = "/run/netns"

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// A pod's network namespace on the bridge, with an address and a default route.
type network struct {
	name   string // of the namespace: the prefix and the pod's UID
	link   string // the bridge's end of the veth
	ip     string
	bits   int
	bridge string
	gate   string
}

func (w network) path() string { return filepath.Join(netnsFolder, w.name) }

func (w network) create(sysctls map[string]string) error {
	if err := ip("", "netns add "+w.name); err != nil {
		return err
	}
	err := ip("",
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", w.link, w.name),
		fmt.Sprintf("link set %s master %s up", w.link, w.bridge))
	if err != nil {
		return err
	}
	err = ip(w.name,
		"link set lo up",
		fmt.Sprintf("addr add %s/%d dev eth0", w.ip, w.bits),
		"link set eth0 up",
		"route add default via "+w.gate)
	if err != nil {
		return err
	}
	return inNetwork(w.path(), func() error {
		for name, value := range sysctls {
			if err := os.WriteFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")), []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// Its processes must have ended: the namespace lives as long as one of them.
func (w network) remove() error {
	err := ip("", "link del "+w.link)
	if _, missing := os.Stat(w.path()); missing != nil {
		return nil
	}
	if e := ip("", "netns del "+w.name); e != nil {
		return e
	}
	return err
}

func ip(namespace string, commands ...string) error {
	arguments := []string{"-batch", "-"}
	if namespace != "" {
		arguments = append([]string{"-n", namespace}, arguments...)
	}
	if strings.HasPrefix(commands[0], "netns ") { // not in a batch: it changes mounts
		arguments = strings.Fields(commands[0])
	}
	cmd := exec.Command("ip", arguments...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, bytes.TrimSpace(out))
	}
	return nil
}

func removeNetworks(prefix string) error {
	entries, err := os.ReadDir(netnsFolder)
	if os.IsNotExist(err) {
		return nil
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, prefix) && uuid.MatchString(strings.TrimPrefix(name, prefix)) {
			if err := ip("", "netns del "+name); err != nil {
				return err
			}
		}
	}
	return err
}

// Calls a function on a thread that is in a network namespace. Sockets that it makes stay in there.
func inNetwork(path string, do func() error) error {
	if path == "" {
		return do()
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		failed <- func() error {
			namespace, err := os.Open(path)
			if err != nil {
				return err
			}
			defer namespace.Close()
			if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", path, err)
			}
			return do()
		}()
	}()
	return <-failed
}

// A connection to a port of a pod's loopback interface, IPv4's first.
func dialInside(ctx context.Context, namespace string, port int32) (*net.TCPConn, error) {
	var conn net.Conn
	err := inNetwork(namespace, func() (err error) {
		dialer := net.Dialer{Timeout: 10 * time.Second}
		if conn, err = dialer.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return nil
		}
		if six, e := dialer.DialContext(ctx, "tcp6", fmt.Sprintf("[::1]:%d", port)); e == nil {
			conn, err = six, nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
