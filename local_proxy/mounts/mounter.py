"""Makes mounts that this process and its children alone see. The launcher imports it: only what is built in, and ctypes.

An ordinary user gets a mount namespace together with a user namespace, in which their user and group IDs are what they were.
That takes no capability, and leaves none: the next execve(2) of a user other than root drops what the namespace gave
(user_namespaces(7)). Who may mount already (root) needs no user namespace, and gets none.

A mount point that does not exist is made without touching the file system: its nearest folder that exists is covered by a small
tmpfs that shows what is in that folder. Folders are bound, links are copied, and all else is a link into `.hairpin`, where the
folder itself is bound: so a file that is replaced by another of its name (resolv.conf, a socket) is followed. For `/`, the tmpfs
becomes the root (pivot_root(2)), since no mount can cover it.
"""

# pathlib takes longer to import than all of this.
# ruff: noqa: PTH101, PTH102, PTH103, PTH109, PTH115, PTH116, PTH120, PTH211

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence

    Arguments = tuple[bytes, Sequence[bytes], Sequence[tuple[bytes, bool]], Sequence[tuple[bytes, bytes]]]
    """Of `mount_all`."""

STEPS = (
    "unshare(CLONE_NEWUSER | CLONE_NEWNS)",
    "writing /proc/self/uid_map",
    "making mounts this process's own",
    "covering a folder by a tmpfs",
    "showing a folder's entries",
    "pivot_root",
    "making a mount point",
    "mounting a copy",
)
BEHIND = b".hairpin"
"""In a folder that is covered: the folder itself."""
_NAMESPACES, _IDS, _OWN, COVER, SHOW, _PIVOT, POINT, COPY = range(8)
_NEW_NS, _NEW_USER = 0x20000, 0x10000000
_NO_SUID, _NO_DEV, _BIND, _MOVE, _REC = 2, 4, 0x1000, 0x2000, 0x4000
_UNBINDABLE, _PRIVATE, _SLAVE = 1 << 17, 1 << 18, 1 << 19
_NO_ENTRY, _NOT_PERMITTED = 2, 1
_WRITES = 0o222
_DONE, _BROKEN = b"\0\0\0", b"\x05\0\0"
"""What the child tells: errno, step, argument; EIO where it can't say."""

_libc = ctypes.CDLL(None, use_errno=True)


class FailedError(Exception):
    """A step failed: an errno, the step's place in STEPS, and which of its arguments it was about."""

    def __init__(self, number: int, step: int, argument: int = 0) -> None:
        super().__init__(number, step, argument)
        self.number = number
        self.step = step
        self.argument = argument


def mount_all_or_none(arguments: Arguments) -> None:
    """Mount, once a child has shown that it works: a failure leaves this process as it was.

    Raises:
        FailedError: it doesn't.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = _BROKEN
        try:
            mount_all(*arguments)
            told = _DONE
        except FailedError as error:
            told = bytes((error.number, error.step, min(error.argument, 255)))
        finally:
            os.write(writing, told)
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 3)
    os.close(reading)
    os.waitpid(child, 0)
    if told != _DONE:
        number, step, argument = told or _BROKEN
        raise FailedError(number, step, argument)
    mount_all(*arguments)


def mount_all(
    stage: bytes,
    covered: Sequence[bytes],
    points: Sequence[tuple[bytes, bool]],
    copies: Sequence[tuple[bytes, bytes]],
) -> None:
    """Mount.

    Args:
        stage: an empty folder, where what covers a folder is put together.
        covered: folders in which mount points are missing, each before those that it is in.
        points: mount points to make in them, and whether each is a folder.
        copies: what is bound where.

    Raises:
        FailedError: a step failed.
    """
    here = _working_folder()
    _unshare()
    for number, folder in enumerate(covered):
        _cover(folder, stage, number)
    for number, (point, is_folder) in enumerate(points):
        try:
            _make(point, is_folder=is_folder)
        except OSError as error:
            raise FailedError(error.errno or 0, POINT, number) from error
    for number, (copy, place) in enumerate(copies):
        _mount(copy, place, _BIND | _REC, step=COPY, argument=number)
    if here:  # the same folder, by the mounts as they are now
        os.chdir(here)


def _working_folder() -> bytes:
    try:
        return os.getcwdb()
    except OSError:
        return b""


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_NEW_NS):
        if ctypes.get_errno() != _NOT_PERMITTED:
            raise FailedError(ctypes.get_errno(), _NAMESPACES)
        if _libc.unshare(_NEW_NS | _NEW_USER):
            raise FailedError(ctypes.get_errno(), _NAMESPACES)
        # Without a privilege, a map of groups is taken only from who gives setgroups(2) up. Groups stay in force.
        for name, text in (
            ("setgroups", b"deny"),
            ("uid_map", b"%d %d 1" % (user, user)),
            ("gid_map", b"%d %d 1" % (group, group)),
        ):
            _write(f"/proc/self/{name}", text)
    # Mounts that this machine makes later are seen; ours are not seen there.
    _mount(None, b"/", _REC | _SLAVE, step=_OWN)


def _write(path: str, text: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FailedError(error.errno or 0, _IDS) from error


def _cover(folder: bytes, stage: bytes, number: int) -> None:
    """Put a tmpfs over a folder that shows what is in it."""
    mode = os.stat(folder).st_mode & 0o7777
    _mount(b"hairpin", stage, _NO_SUID | _NO_DEV, b"tmpfs", b"mode=0755,size=4m", step=COVER, argument=number)
    _mount(None, stage, _UNBINDABLE, step=COVER, argument=number)  # or a folder that it is in would be shown with it
    try:
        os.mkdir(stage + b"/" + BEHIND)
        _show(folder, stage, number)
        if folder != b"/":
            _mount(folder, stage + b"/" + BEHIND, _BIND | _REC, step=SHOW, argument=number)
        os.chmod(stage, mode & ~_WRITES)  # it is this user's, who may not write the folder
    except OSError as error:
        raise FailedError(error.errno or 0, SHOW, number) from error
    if folder == b"/":
        if _libc.pivot_root(stage, stage + b"/" + BEHIND):
            raise FailedError(ctypes.get_errno(), _PIVOT, number)
        os.chdir("/")
    else:
        _mount(stage, folder, _MOVE, step=COVER, argument=number)
    _mount(None, folder, _PRIVATE, step=COVER, argument=number)


def _show(folder: bytes, stage: bytes, number: int) -> None:
    for entry in os.scandir(folder):
        place = stage + b"/" + entry.name
        try:
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir(follow_symlinks=False):
                os.mkdir(place)
                _mount(entry.path, place, _BIND | _REC, step=SHOW, argument=number)
            else:
                os.symlink(BEHIND + b"/" + entry.name, place)
        except FileNotFoundError:  # it has just gone
            continue
        except FailedError as error:
            if error.number != _NO_ENTRY:
                raise


def _make(point: bytes, *, is_folder: bool) -> None:
    above = os.path.dirname(point)
    os.makedirs(above, exist_ok=True)
    if is_folder:
        os.makedirs(point, exist_ok=True)
    else:
        os.close(os.open(point, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _mount(
    source: bytes | None,
    place: bytes,
    flags: int,
    kind: bytes | None = None,
    options: bytes | None = None,
    *,
    step: int,
    argument: int = 0,
) -> None:
    if _libc.mount(source, place, kind, ctypes.c_ulong(flags), options):
        raise FailedError(ctypes.get_errno(), step, argument)
