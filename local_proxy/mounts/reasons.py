"""Why a system lets a command have no mounts of its own, and what its user can do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

_NAMESPACES = "/proc/sys/user/max_user_namespaces"
_MOUNTS = "/proc/sys/user/max_mnt_namespaces"
_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_DEBIAN = "/proc/sys/kernel/unprivileged_userns_clone"


class CannotMountError(Exception):
    """Why nothing can be mounted, in words for the user, with what would help."""


def why_not(number: int, what: str, read: Callable[[str], str] | None = None) -> str:
    """What is said of a step that failed.

    Args:
        number: the errno.
        what: the step.
        read: of a file below /proc/sys, nothing if there is none; for tests.
    """
    read = read or _read
    if number in (errno.ENOSPC, errno.EUSERS):
        full = next((path for path in (_NAMESPACES, _MOUNTS) if read(path) == "0"), "")
        if full:
            return f"namespaces are switched off ({_setting(full)}=0); an administrator can allow them by sysctl"
        return f"there are as many namespaces as may be ({_setting(_NAMESPACES)}), or they are nested too deep"
    if number in (errno.EPERM, errno.EACCES):
        if read(_DEBIAN) == "0":
            return (
                f"user namespaces are root's alone ({_setting(_DEBIAN)}=0); an administrator can allow them by sysctl"
            )
        if read(_APPARMOR) == "1":
            return (
                f"AppArmor lets ordinary programs use no user namespaces ({_setting(_APPARMOR)}=1, as on Ubuntu); an "
                "administrator can give hairpin's Python a profile with `userns,`, or set it to 0"
            )
        return (
            f"a container or sandbox around this shell forbids it ({what}: {os.strerror(number)}); a container needs "
            "CAP_SYS_ADMIN, or a seccomp profile that allows unshare, mount and pivot_root"
        )
    if number == errno.EINVAL and "unshare" in what:
        return "this kernel is built without user namespaces"
    return f"{what}: {os.strerror(number)}"


def _setting(path: str) -> str:
    return path.removeprefix("/proc/sys/").replace("/", ".")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
