"""Programs as an ordinary user of this machine, who has no capability and may write nothing but a home of theirs."""

from __future__ import annotations

import os

from tests.support.cluster.images import PYTHON_ENVIRONMENT, python_binds

UID = 1000
GROUP = 27
"""Another group that the user is in."""
HOME = "/mnt/home"
# Nobody uses /mnt here: a file system of this mount namespace's own over it, where the user may enter whatever they need.
_PREPARE = r"""
set -e
mount -t tmpfs -o mode=0755 mnt /mnt
binds=$1 user=$2 group=$3 prepare=$4; shift 4
echo "$binds" | while IFS=: read -r source target; do mkdir -p "$target"; mount --rbind "$source" "$target"; done
install -d -o "$user" -g "$user" /mnt/home
eval "$prepare"
cd /mnt/home
exec setpriv --reuid="$user" --regid="$user" --groups="$user,$group" --inh-caps=-all --bounding-set=-all \
  env HOME=/mnt/home TMPDIR=/mnt/home "$@"
"""


def ordinary(*argv: str, prepare: str = "") -> list[str]:
    """A command line, to be started by root, that runs a program as that user. The mounts it makes are seen by nobody else.

    Args:
        argv: the program; PYTHON is Python with hairpin there.
        prepare: what root does before, as a shell has it.
    """
    binds = "\n".join(f"{source}:{target}" for source, target in python_binds().items())
    variables = [f"{name}={value}" for name, value in PYTHON_ENVIRONMENT.items()]
    shell = ["sh", "-c", _PREPARE, "sh", binds, str(UID), str(GROUP), prepare]
    return ["unshare", "--mount", "--propagation", "private", *shell, *variables, *argv]


def why_not() -> str:
    """Why this machine can't run them; nothing if it can."""
    return "" if os.geteuid() == 0 else "needs root, to become another user"
