"""The flags about the target's environment and files, checked."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from hairpin.errors import InvalidFieldError
from local_proxy.target.rules import Rules

_Choice = TypeVar("_Choice", bound=StrEnum)


class From(StrEnum):
    """Whence variables."""

    AUTO = "auto"
    TARGET = "target"
    OFF = "off"


class FilesMode(StrEnum):
    """Whether files, and how the command finds them."""

    AUTO = "auto"
    MOUNT = "mount"
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
        "--files": files in (FilesMode.MOUNT, FilesMode.REWRITE),
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
