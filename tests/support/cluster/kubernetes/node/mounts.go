package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

const hostFolder = "/.host" // where the machine's own root is while a container is made

// Enters the pod's network and makes the container's own file system: this machine's files below, changes in memory above.
func (s containerSpec) enter() error {
	if s.Network != "" {
		fd, err := unix.Open(s.Network, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("network %s: %w", s.Network, err)
		}
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network %s: %w", s.Network, err)
		}
		unix.Close(fd)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return err
	}
	unix.Umask(0)
	defer unix.Umask(0o022)
	steps := []func() error{s.makeRoot, mountSystem, s.writeFiles, s.mountBinds, s.openPaths, leaveHost, s.lockRoot}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s containerSpec) makeRoot() error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", s.Stage, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	root, upper, work := s.Stage+"/root", s.Stage+"/upper", s.Stage+"/work"
	for _, folder := range []string{root, upper, work} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	// What runs on the machine itself is not to be seen in a container.
	if err := os.Mkdir(upper+"/run", 0o755); err != nil {
		return err
	}
	if err := unix.Setxattr(upper+"/run", "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("opaque /run: %w", err)
	}
	if err := mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)); err != nil {
		return err
	}
	if err := os.Mkdir(root+hostFolder, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, root+hostFolder); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Chdir("/")
}

func mountSystem() error {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	if err := mount("proc", "/proc", "proc", quiet, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", quiet|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return err
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := mountBind(bind{From: "/dev/" + device, To: "/dev/" + device}); err != nil {
			return err
		}
	}
	for _, folder := range []string{"/dev/pts", "/dev/shm"} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	if err := mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return err
	}
	if err := mount("shm", "/dev/shm", "tmpfs", quiet, "mode=1777"); err != nil {
		return err
	}
	links := map[string]string{
		"/dev/ptmx": "pts/ptmx", "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	}
	for link, to := range links {
		if err := os.Symlink(to, link); err != nil {
			return err
		}
	}
	return nil
}

// Replaces files such as /etc/hosts, which may be links here.
func (s containerSpec) writeFiles() error {
	for path, text := range s.Files {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s containerSpec) mountBinds() error {
	binds := append([]bind(nil), s.Binds...)
	sort.SliceStable(binds, func(i, j int) bool { return depth(binds[i].To) < depth(binds[j].To) })
	for _, b := range binds {
		if err := mountBind(b); err != nil {
			return err
		}
	}
	// Only now: a volume may be mounted inside a read-only one, as Istio does.
	for _, b := range binds {
		if !b.ReadOnly {
			continue
		}
		if err := mount("", b.To, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	return nil
}

func depth(path string) int { return strings.Count(filepath.Clean(path), "/") }

// Paths are those of the new root: a link on the way to the target leads to somewhere in it.
func mountBind(b bind) error {
	from := hostFolder + b.From
	found, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", b.To, err)
	}
	if err := makeMountPoint(b.To, found.IsDir()); err != nil {
		return fmt.Errorf("mount on %s: %w", b.To, err)
	}
	return mount(from, b.To, "", unix.MS_BIND, "")
}

func makeMountPoint(path string, folder bool) error {
	if folder {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// Folders on the way to what is mounted and to the program can be passed by every user, as in an image; root's home is closed here.
func (s containerSpec) openPaths() error {
	paths := []string{}
	for _, b := range s.Binds {
		paths = append(paths, b.To)
	}
	if program := s.Process.Args[0]; filepath.IsAbs(program) {
		paths = append(paths, program)
		if real, err := filepath.EvalSymlinks(program); err == nil {
			paths = append(paths, real)
		}
	}
	for _, path := range paths {
		for folder := filepath.Dir(path); folder != "/"; folder = filepath.Dir(folder) {
			found, err := os.Stat(folder)
			if err != nil {
				return err
			}
			if mode := found.Mode().Perm(); mode&0o001 == 0 {
				if err := os.Chmod(folder, mode|0o111); err != nil && !errors.Is(err, unix.EROFS) {
					return err
				}
			}
		}
	}
	// Like a runtime, make the working directory where the image has none.
	return os.MkdirAll(s.Process.Dir, 0o755)
}

func leaveHost() error {
	if err := unix.Unmount(hostFolder, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", hostFolder, err)
	}
	return os.Remove(hostFolder)
}

func (s containerSpec) lockRoot() error {
	if !s.ReadOnlyRoot {
		return nil
	}
	return mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s%s on %s: %w", kind, source, target, err)
	}
	return nil
}

// Takes away what is mounted below a folder of the node's, the deepest first.
func unmountBelow(folder string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], folder+"/") {
			points = append(points, fields[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}
