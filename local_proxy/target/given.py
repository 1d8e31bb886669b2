"""What `hairpin run` gives its command of the target: variables, private copies of files, and the lines that say so."""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.files import private_directory, write_private
from local_proxy.target.paths import rewritten, under
from local_proxy.target.rules import Rules, choose

if TYPE_CHECKING:
    from local_proxy.target.read import Found, Reader

ROOT_VARIABLE = "HAIRPIN_ROOT"
"""Names the folder that stands for the container's root to the command."""
_EARLY = 0.8
"""Of a token's life, after which the next is got: as a kubelet does."""
_PAUSE_SECONDS = (30.0, 3600.0)
"""Between two reads of tokens, at least and at most: one whose pod is gone is refused long before its end."""
_MOST_NAMES = 8
_ROLES = "the ClusterRole hairpin-target-exec or hairpin-target-config gives the right"
_Choice = TypeVar("_Choice", bound=StrEnum)


class From(StrEnum):
    """Whence variables."""

    AUTO = "auto"
    TARGET = "target"
    OFF = "off"


class FilesMode(StrEnum):
    """Whether files."""

    AUTO = "auto"
    REWRITE = "rewrite"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """The flags about the target's environment and files."""

    env_from: From = From.AUTO
    files: FilesMode = FilesMode.AUTO
    container: str | None = None
    rules: Rules = field(default_factory=Rules)
    assigned: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""
    """The first flag that needs a target's pod; empty: none was given."""


@dataclass(frozen=True, slots=True)
class Given:
    """For the command."""

    variables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def target_options(arguments: argparse.Namespace) -> TargetOptions:
    """Check the flags.

    Raises:
        InvalidFieldError: one can't be used.
    """
    env_from, files = _choice("--env-from", arguments.env_from, From), _choice("--files", arguments.files, FilesMode)
    if arguments.container == "":
        raise InvalidFieldError("--container", None, "is empty", "write a container's name, or leave the flag out")
    asked = {
        "--env-from": env_from is From.TARGET,
        "--files": files is FilesMode.REWRITE,
        "--container": arguments.container,
        "--env-include": arguments.env_include,
        "--env-exclude": arguments.env_exclude,
    }
    return TargetOptions(
        env_from=env_from,
        files=files,
        container=arguments.container,
        rules=Rules(tuple(arguments.env_include), tuple(arguments.env_exclude)),
        assigned=dict(_assigned(text) for text in arguments.env_set),
        asked=next((flag for flag, given in asked.items() if given), ""),
    )


def _choice(flag: str, text: str, choices: type[_Choice]) -> _Choice:
    try:
        return choices(text)
    except ValueError:
        raise InvalidFieldError(flag, text, "is no choice", f"choose one of {', '.join(choices)}") from None


def _assigned(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidFieldError("--env-set", text, "sets no variable", "write NAME=VALUE; NAME= for an empty one")
    return name, value


def check_target(options: TargetOptions, *, why_not: str) -> None:
    """Hold that no flag asks for what can't be.

    Args:
        options: the flags.
        why_not: why no target's pod can be read; empty if it can.

    Raises:
        InvalidFieldError: one does.
    """
    if options.asked and why_not:
        raise InvalidFieldError(options.asked, None, f"has no meaning here: {why_not}", "drop it")


@contextlib.asynccontextmanager
async def target_given(
    options: TargetOptions, reader: Reader | None, folder: Path, warn: Callable[[str], None]
) -> AsyncIterator[Given]:
    """What the command gets of the target, and its tokens kept fresh until the context ends.

    Args:
        options: the flags.
        reader: of the target; None: there is nothing to read.
        folder: a private one.
        warn: told when a token can't be renewed.

    Raises:
        HairpinError: what was demanded can't be had.
    """
    if reader is None or (options.env_from is From.OFF and options.files is FilesMode.OFF):
        yield Given()
        return
    from hairpin.kubernetes.errors import ApiForbiddenError  # noqa: PLC0415 # not for a run without a target
    from local_proxy.target.read import required  # noqa: PLC0415 # likewise

    try:
        found = await reader.read()
    except ApiForbiddenError as error:
        if options.asked:
            raise HairpinError(f"{options.asked}: {error}; {_ROLES}") from error
        yield Given()  # who was given neither role works as before, and need not hear of it at each run
        return
    except HairpinError as error:
        if options.asked:
            raise
        yield Given(notes=(_nothing(error),))
        return
    if options.env_from is From.TARGET or options.files is FilesMode.REWRITE:
        required(found)
    root = folder / "root"
    given = _given(options, found, root)
    async with asyncio.TaskGroup() as tasks:
        renewing = tasks.create_task(_renew(reader, found, root, warn)) if found.tokens else None
        try:
            yield given
        finally:
            if renewing is not None:
                renewing.cancel()


def _nothing(error: HairpinError) -> str:
    return f"the target's environment and files are not used: {error}; --env-from off --files off does without"


def _given(options: TargetOptions, found: Found, root: Path) -> Given:
    notes = []
    variables: dict[str, str] = {}
    if options.env_from is not From.OFF:
        chosen = choose(found.variables, options.rules)
        variables = chosen.taken
        stays = f"; local stay {_names(chosen.local)}" if chosen.local else ""
        notes.append(
            f"environment: {len(variables)} variables of pod {found.pod}, container {found.container}, by {found.how}{stays}"
        )
    if options.files is not FilesMode.OFF and found.files:
        write_files(found, root)
        variables, changed = rewritten(variables, [mount.path for mount in found.mounts], root)
        variables[ROOT_VARIABLE] = str(root)
        where = f"; {_names(changed)} lead there" if changed else ""
        notes.append(f"files: {len(found.files)} copies under {root} ({ROOT_VARIABLE}){where}")
    if options.files is not FilesMode.OFF and found.uncopied:
        notes.append(f"no copy is made of {', '.join(found.uncopied)}")
    if found.left:
        notes.append(f"left out: {'; '.join(map(str, found.left))}")
    return Given(variables, tuple(notes))


def write_files(found: Found, root: Path, only: frozenset[str] | None = None) -> None:
    """Write the copies; they are for their owner alone, and can be run if they can be in the pod."""
    for path, file in found.files.items():
        if only is None or path in only:
            place = under(root, path)
            for above in [*place.parents][len(place.relative_to(root).parts) - 1 :: -1]:
                private_directory(above)  # the parents that mkdir makes by itself are everyone's
            write_private(place, file.data)
            place.chmod(0o400 | (file.mode & 0o700))


async def _renew(reader: Reader, found: Found, root: Path, warn: Callable[[str], None]) -> None:
    told = ""
    while True:
        await asyncio.sleep(pause([found.files[path].data for path in found.tokens], time.time()))
        try:
            fresh = await reader.read()
            write_files(fresh, root, frozenset(fresh.tokens))
            found, told = (fresh if fresh.tokens else found), ""
        except (HairpinError, OSError) as error:
            if told != str(error):
                told = str(error)
                warn(f"the target's token is not renewed: {error}; trying on")


def pause(tokens: list[bytes], now: float) -> float:
    """How long the tokens are good for, in seconds."""
    ends = [_renewal(token) for token in tokens]
    first, longest = _PAUSE_SECONDS
    return max(first, min(longest, *(end - now for end in ends if end is not None), longest))


def _renewal(token: bytes) -> float | None:
    """When a token is to be renewed, in seconds since the epoch; None where it does not say."""
    try:
        payload = token.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        return float(claims["iat"] + _EARLY * (claims["exp"] - claims["iat"]))
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def _names(names: tuple[str, ...]) -> str:
    told = list(names[:_MOST_NAMES])
    if more := len(names) - len(told):
        told.append(f"{more} more")
    return ", ".join(told)
