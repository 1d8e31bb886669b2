"""What `hairpin run` gives its command of the target: variables, private copies of files, and the lines that say so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.files import private_directory
from local_proxy.mounts.plan import Mounter, Plan, plan
from local_proxy.mounts.reasons import CannotMountError
from local_proxy.target.copies import copy_places, write_copies
from local_proxy.target.options import FilesMode, From, TargetOptions
from local_proxy.target.paths import rewritten
from local_proxy.target.renew import keep_fresh
from local_proxy.target.rules import choose

if TYPE_CHECKING:
    from local_proxy.target.read import Found, Reader

ROOT_VARIABLE = "HAIRPIN_ROOT"
"""Names the folder that stands for the container's root to the command."""
_MOST_NAMES = 8
_ROLES = "the ClusterRole hairpin-target-exec or hairpin-target-config gives the right"


@dataclass(frozen=True, slots=True)
class Given:
    """For the command."""

    variables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Reading:
    """A target that is being read, beside all else that is to be done before the command can start.

    Args:
        reader: of the target; None: there is nothing to read.
        tasks: of whoever may end it.
    """

    def __init__(self, reader: Reader | None, tasks: asyncio.TaskGroup) -> None:
        self.reader = reader
        self._task = None if reader is None else tasks.create_task(_outcome(reader))

    async def found(self) -> Found:
        """What was read.

        Raises:
            HairpinError: it could not be.
            ValueError: there is nothing to read.
        """
        if self._task is None:
            raise ValueError("there is no target to read")
        found = await self._task
        if isinstance(found, HairpinError):
            raise found
        return found


async def _outcome(reader: Reader) -> Found | HairpinError:
    try:
        return await reader.read()
    except HairpinError as error:  # it is told when the turn comes, not in the middle of a claim
        return error


@contextlib.asynccontextmanager
async def target_given(
    options: TargetOptions,
    reading: Reading,
    folder: Path,
    warn: Callable[[str], None],
    *,
    mount: Mounter | None = None,
    needed: Iterable[Path] = (),
) -> AsyncIterator[Given]:
    """What the command gets of the target, and its files kept fresh until the context ends.

    Args:
        options: the flags.
        reading: the target.
        folder: a private one.
        warn: told when files can't be kept fresh.
        mount: None: there is no way to mount.
        needed: what no mount may hide: the command, its folder.

    Raises:
        HairpinError: what was demanded can't be had.
    """
    reader = reading.reader
    if reader is None:
        yield Given()
        return
    from hairpin.kubernetes.errors import ApiForbiddenError  # noqa: PLC0415 # not for a run without a target
    from local_proxy.target.read import check_whole  # noqa: PLC0415 # likewise

    try:
        found = await reading.found()
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
    if options.env_from is From.TARGET:
        check_whole(found, "--env-from", options.env_from.value)
    if options.files in (FilesMode.MOUNT, FilesMode.REWRITE):
        check_whole(found, "--files", options.files.value)
    root = folder / "root"
    variables, notes = _variables(options, found)
    fresh = options.files is not FilesMode.OFF and bool(found.mounts)
    if fresh:
        placing = _Placing(options.files, root, mount, (*needed, folder))
        variables, note = await placing.place(found, variables)
        notes.append(note)
        fresh = root.exists()
    if options.files is not FilesMode.OFF and found.uncopied:
        notes.append(f"no copy is made of {', '.join(found.uncopied)}")
    if found.left:
        notes.append(f"left out: {'; '.join(map(str, found.left))}")
    async with asyncio.TaskGroup() as tasks:
        renewing = tasks.create_task(keep_fresh(reader, found, root, warn)) if fresh else None
        try:
            yield Given(variables, tuple(notes))
        finally:
            if renewing is not None:
                renewing.cancel()


def _nothing(error: HairpinError) -> str:
    return f"the target's environment and files are not used: {error}; --env-from off --files off does without"


def _variables(options: TargetOptions, found: Found) -> tuple[dict[str, str], list[str]]:
    if options.env_from is From.OFF:
        return {}, []
    chosen = choose(found.variables, options.rules)
    stays = f"; local stay {_names(chosen.local)}" if chosen.local else ""
    whence = f"{len(chosen.taken)} variables of pod {found.pod}, container {found.container}, by {found.how}"
    return chosen.taken, [f"environment: {whence}{stays}"]


@dataclass(frozen=True, slots=True)
class _Placing:
    """The copies, and how the command finds them."""

    mode: FilesMode
    root: Path
    mount: Mounter | None
    needed: tuple[Path, ...]

    async def place(self, found: Found, variables: Mapping[str, str]) -> tuple[dict[str, str], str]:
        """The variables, and a line for the user."""
        if problem := self._write(found):
            return dict(variables), f"files: none, {problem}"
        why = "" if self.mode is FilesMode.REWRITE or (self.mode is FilesMode.AUTO and self.mount is None) else None
        places = copy_places(found, self.root)
        planned = plan(places, self.needed, user=os.geteuid())
        if self.mode is FilesMode.MOUNT and planned.refused:
            raise _demanded(_refusals(planned))
        if why is None and not planned.copies:
            why = f"; they are not mounted: {_refusals(planned)}"
        if why is None:
            try:
                await self._mount(planned)
            except CannotMountError as error:
                if self.mode is FilesMode.MOUNT:
                    raise _demanded(str(error)) from error
                why = f"; they are not mounted: {error}"
        if why is None:
            elsewhere, note = list(planned.refused), self._mounted(found, planned)
        else:
            elsewhere, note = list(places), f"files: {len(found.files)} copies under {self.root} ({ROOT_VARIABLE}){why}"
        made, changed = rewritten(variables, elsewhere, self.root)
        made[ROOT_VARIABLE] = str(self.root)
        return made, f"{note}; {_names(changed)} lead there" if changed else note

    def _write(self, found: Found) -> str:
        """Write the copies, all or none: why that can't be done, or nothing."""
        try:
            write_copies(found, self.root)
        except OSError as error:
            shutil.rmtree(self.root, ignore_errors=True)
            problem = f"since copies can't be written to {self.root.parent}: {error.strerror or error}"
            if self.mode is FilesMode.AUTO:
                return problem
            remedy = "write off to do without"
            raise InvalidFieldError("--files", self.mode.value, f"can't be done, {problem}", remedy) from error
        return ""

    async def _mount(self, planned: Plan) -> None:
        if self.mount is None:
            raise CannotMountError("only Linux has mounts that one program alone sees")
        await self.mount(private_directory(self.root.parent / "stage"), planned)

    def _mounted(self, found: Found, planned: Plan) -> str:
        paths = tuple(sorted(place for _, place in planned.copies))
        note = f"files: {len(found.files)}, for the command alone at {_names(paths)} (copies of {self.root}, {ROOT_VARIABLE})"
        return f"{note}; only there: {_refusals(planned)}" if planned.refused else note


def _refusals(planned: Plan) -> str:
    return "; ".join(f"{path} ({why})" for path, why in planned.refused.items())


def _demanded(problem: str) -> InvalidFieldError:
    return InvalidFieldError(
        "--files", "mount", f"can't be done: {problem}", "write auto or rewrite: variables lead to copies"
    )


def _names(names: tuple[str, ...]) -> str:
    told = list(names[:_MOST_NAMES])
    if more := len(names) - len(told):
        told.append(f"{more} more")
    return ", ".join(told)
