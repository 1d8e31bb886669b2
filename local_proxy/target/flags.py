"""The flags about the target's environment and files, as the command line has them. It must load fast: nothing else is here."""

from __future__ import annotations

import argparse


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    group = parser.add_argument_group("the target's environment and files (in Kubernetes)")
    group.add_argument(
        "--env-from",
        default="auto",
        metavar="auto|target|off",
        help="auto: of the target's pod what you may read (default); target: all of it, or an error; off: none",
    )
    group.add_argument(
        "--env-include", action="append", default=[], metavar="GLOB", help="take it, though it stays local by default"
    )
    group.add_argument(
        "--env-exclude", action="append", default=[], metavar="GLOB", help="leave it local; --env-include goes first"
    )
    group.add_argument(
        "--env-set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the command, whatever else says",
    )
    group.add_argument("--container", metavar="NAME", help="the target's container (default: the application's)")
    group.add_argument(
        "--files",
        default="auto",
        metavar="auto|mount|rewrite|off",
        help="mount: mounted files at their own paths, for the command alone, or an error; rewrite: private copies, variables "
        "lead to them; auto: mount where it can be and connections are intercepted, else rewrite (default); off",
    )
