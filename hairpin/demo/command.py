"""`hairpin demo`: the example shop in a mesh of its own, and a story to follow, by hand or unattended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hairpin.cli import Command

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


class Demo(Command):
    """The newcomer's first command."""

    help = "start the example shop in a mesh on this machine, and tell what to try in it"
    description = (
        "Starts three services (frontend, checkout, inventory) with a sidecar each on this machine, without root, and says "
        "what to type next. With --once it types it itself, shows what came of each step, and exits 0 only if all of it held."
    )
    examples = ("hairpin demo", "hairpin demo --once")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        parser.add_argument("--once", action="store_true", help="run the story unattended and exit")
        parser.add_argument(
            "--state", metavar="FOLDER", help="where the mesh keeps its files (default: the user's state)"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Start it."""
        import asyncio  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        from hairpin.demo.story import guide, play  # noqa: PLC0415
        from hairpin.mesh.command import up  # noqa: PLC0415

        state = Path(arguments.state) if arguments.state else None
        if arguments.once:
            return asyncio.run(play(sys.stdout))
        return asyncio.run(up(shop_folder() / "mesh.yaml", state, after=guide))


def shop_folder() -> Path:
    """Where the example shop is: in the installed package, or beside it in a clone.

    Raises:
        NotFoundError: it was left out of this installation.
    """
    from pathlib import Path  # noqa: PLC0415

    import hairpin  # noqa: PLC0415
    from hairpin.errors import NotFoundError  # noqa: PLC0415

    package = Path(hairpin.__file__).parent
    for folder in (package / "examples" / "shop", package.parent / "examples" / "shop"):
        if (folder / "mesh.yaml").is_file():
            return folder
    raise NotFoundError("the example shop is not part of this installation; clone the repository, or reinstall hairpin")


command = Demo()
