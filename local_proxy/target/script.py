"""What is run in the target's container, and what it told: `sh` and `cat` are enough for it.

Each piece ends with a mark of ours that nobody in the container can know before, so that no content can pass for another piece.
A container whose image has no shell, or no `cat`, is read from its spec instead.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hairpin.errors import HairpinError
from local_proxy.target.volumes import is_below, within

MOST_BYTES = 32 * 1024 * 1024
"""Of all that an exec may bring. A ConfigMap or a Secret has 1 MiB at most; we take what thirty such have."""
_NO_CAT = 41
# PID 1 may be another user's, or none of the container's (shareProcessNamespace): its own environment is the other source.
# `..data` and its like, by which a kubelet swaps a volume's content, begin with two dots; keys never do.
_SCRIPT = r"""
mark=$1; shift
piece() { printf '%s' "$mark"; }
walk() {
  if [ -d "$1" ]; then
    for inner in "$1"/* "$1"/.[!.]*; do
      [ -e "$inner" ] && walk "$inner"
    done
  elif [ -f "$1" ] && [ -r "$1" ]; then
    printf '%s' "$1"; piece; cat "$1"; piece
  fi
}
cat /proc/self/environ || exit 41
piece
cat /proc/1/environ 2>/dev/null
piece
for folder in "$@"; do walk "$folder"; done
printf end; piece
"""


def new_mark() -> str:
    """A mark."""
    return f"\n-- {secrets.token_hex(16)}\n"


def command(mark: str, folders: Iterable[str]) -> list[str]:
    """The command: environment and the files of some folders.

    Args:
        mark: `new_mark`.
        folders: or files, in the container.
    """
    return ["sh", "-c", _SCRIPT, "hairpin", mark, *folders]


def lacks_cat(code: int) -> bool:
    """Whether an exit code means that the image has no `cat`."""
    return code == _NO_CAT


@dataclass(frozen=True, slots=True)
class Told:
    """What the container told."""

    variables: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)


def parse(output: bytes, mark: str, folders: Sequence[str], expected: Iterable[str] = ()) -> Told:
    """Read the output.

    Args:
        output: of the command.
        mark: which it was given.
        folders: likewise; a file that is in none of them is not taken.
        expected: variables that the spec names: an environment of PID 1 that lacks one is none of this container's.

    Raises:
        HairpinError: it is cut off.
    """
    pieces = output.split(mark.encode())
    if len(pieces) < 4 or len(pieces) % 2 or pieces[-2:] != [b"end", b""]:  # noqa: PLR2004 # two environments, pairs, the end
        raise HairpinError("what the target's container told of itself is cut off")
    own, main = variables(pieces[0]), variables(pieces[1])
    files = {}
    for name, content in zip(pieces[2:-2:2], pieces[3:-2:2], strict=True):
        path = name.decode(errors="surrogateescape")
        if any(within(path, folder) for folder in folders) and is_below(path.lstrip("/")):
            files[posixpath.normpath(path)] = content
    # An entry point may have exported more before it became the application: then PID 1 knows more than an exec does.
    believed = {"KUBERNETES_SERVICE_HOST", *expected} <= main.keys()
    return Told(main if believed else own, files)


def variables(environ: bytes) -> dict[str, str]:
    """An environment as the kernel has it: NUL after each variable. Bytes that are no UTF-8 stay what they are."""
    found = {}
    for entry in environ.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name:
            found[name.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
    return found
