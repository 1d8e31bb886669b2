package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// In the order of their numbers.
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// What container runtimes leave to a container that asks for nothing.
var defaultCapabilities = strings.Fields(`CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
	SYS_CHROOT KILL AUDIT_WRITE`)

func runAsUser(object *v1.Pod, c *v1.Container) *int64 {
	if own := c.SecurityContext; own != nil && own.RunAsUser != nil {
		return own.RunAsUser
	}
	if pods := object.Spec.SecurityContext; pods != nil {
		return pods.RunAsUser
	}
	return nil
}

// Who a container's program is and what it may, as its security contexts say.
func applySecurity(object *v1.Pod, c *v1.Container, to *containerSpec) error {
	pods, own := object.Spec.SecurityContext, c.SecurityContext
	if pods == nil {
		pods = &v1.PodSecurityContext{}
	}
	if own == nil {
		own = &v1.SecurityContext{}
	}
	program := &to.Process
	if user := runAsUser(object, c); user != nil {
		program.UID = uint32(*user)
	}
	group := own.RunAsGroup
	if group == nil {
		group = pods.RunAsGroup
	}
	if group != nil {
		program.GID = uint32(*group)
	}
	nonRoot := own.RunAsNonRoot
	if nonRoot == nil {
		nonRoot = pods.RunAsNonRoot
	}
	if isTrue(nonRoot) && program.UID == 0 {
		return fmt.Errorf("container has runAsNonRoot and image will run as root (container %q)", c.Name)
	}
	program.Groups = []uint32{program.GID}
	for _, more := range pods.SupplementalGroups {
		program.Groups = append(program.Groups, uint32(more))
	}
	if pods.FSGroup != nil {
		program.Groups = append(program.Groups, uint32(*pods.FSGroup))
	}
	program.NoNewPrivs = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation
	program.Capabilities = capabilities(own)
	to.ReadOnlyRoot = isTrue(own.ReadOnlyRootFilesystem)
	return nil
}

func capabilities(own *v1.SecurityContext) []uintptr {
	kept := map[string]bool{}
	if isTrue(own.Privileged) {
		set(kept, capabilityNames, true)
	} else {
		set(kept, defaultCapabilities, true)
		if own.Capabilities != nil {
			for _, change := range []struct {
				names []v1.Capability
				to    bool
			}{{own.Capabilities.Drop, false}, {own.Capabilities.Add, true}} {
				for _, name := range change.names {
					if strings.EqualFold(string(name), "ALL") {
						set(kept, capabilityNames, change.to)
					} else {
						kept[strings.TrimPrefix(strings.ToUpper(string(name)), "CAP_")] = change.to
					}
				}
			}
		}
	}
	var numbers []uintptr
	for number, name := range capabilityNames {
		if kept[name] && number <= unix.CAP_LAST_CAP {
			numbers = append(numbers, uintptr(number))
		}
	}
	return numbers
}

func set(kept map[string]bool, names []string, to bool) {
	for _, name := range names {
		kept[name] = to
	}
}

// A user's home folder by this machine's list, `/` for who is not in it.
func home(uid uint32) string {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "/"
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Split(line, ":"); len(fields) > 5 && fields[2] == strconv.Itoa(int(uid)) {
			return fields[5]
		}
	}
	return "/"
}
