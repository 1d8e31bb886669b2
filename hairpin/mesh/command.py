"""`hairpin mesh`: the embedded mesh, up and what it is doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hairpin.cli import Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from hairpin.mesh.state import MeshFolder
    from hairpin.model.mesh import Mesh as MeshModel


class Mesh(Command):
    """`mesh up` and `mesh status`."""

    help = "run services with sidecars on this machine, or look at them"
    description = (
        "`mesh up` starts the services of a mesh.yaml with a sidecar each, the control plane and the agent, on loopback and "
        "without root, until Ctrl-C. `mesh status` shows what each proxy has acknowledged or refused."
    )
    examples = ("hairpin mesh up mesh.yaml", "hairpin mesh status")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="up|status")
        up_parser = actions.add_parser("up", help="start a mesh, until Ctrl-C")
        up_parser.add_argument("file", nargs="?", help="the mesh's file (default: the example shop's)")
        up_parser.add_argument("--state", metavar="FOLDER", help="where it keeps its files (default: the user's state)")
        status = actions.add_parser("status", help="what each proxy has acknowledged or refused")
        status.add_argument("--config", metavar="FILE", help="the developer's file that the mesh wrote")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it."""
        import asyncio  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        if arguments.action == "status":
            from hairpin.mesh.status import status  # noqa: PLC0415

            return asyncio.run(status(arguments.config))
        from hairpin.demo.command import shop_folder  # noqa: PLC0415

        file = Path(arguments.file) if arguments.file else shop_folder() / "mesh.yaml"
        return asyncio.run(up(file, Path(arguments.state) if arguments.state else None))


command = Mesh()


def load_mesh(file: Path, *, any_entry: bool = False) -> MeshModel:
    """Read a mesh's file and fill its addresses in.

    Args:
        file: the mesh.yaml.
        any_entry: whether the entry's port is to be a free one, whatever the file says.

    Raises:
        NotFoundError: there is no such file.
        InvalidFieldError: a field is wrong, or its port is taken.
    """
    from hairpin.errors import InvalidFieldError  # noqa: PLC0415
    from hairpin.mesh.mesh_file import mesh_from_document  # noqa: PLC0415
    from hairpin.ports import free_ports, is_free  # noqa: PLC0415
    from hairpin.yaml_file import load_yaml  # noqa: PLC0415

    document = load_yaml(file)
    if any_entry and isinstance(document, dict) and isinstance(document.get("entry"), dict):
        document["entry"].pop("port", None)
    mesh = mesh_from_document(document, free_ports())
    wanted = {"entry.port": mesh.entry.address}
    for workload in mesh.workloads:
        if workload.command:  # without one the application is the user's, and may run already
            wanted |= {f"services.{workload.name}.ports.{port.name}.app": port.app for port in workload.ports}
    for field, address in wanted.items():
        if not is_free(address.host, address.port):
            remedy = f"end it, or choose another port in {file}"
            raise InvalidFieldError(field, address.port, "is taken by another process", remedy)
    return mesh


async def up(file: Path, state: Path | None, *, after: Callable[[MeshModel, MeshFolder], str] | None = None) -> int:
    """Run a mesh until SIGINT or SIGTERM."""
    import asyncio  # noqa: PLC0415
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from hairpin.mesh.state import MeshFolder, default_folder  # noqa: PLC0415
    from hairpin.mesh.supervisor import MeshSupervisor  # noqa: PLC0415

    folder = MeshFolder(state or default_folder())
    lock = folder.lock()
    task, stopping = asyncio.current_task(), False

    def stop() -> None:
        nonlocal stopping
        if task is not None and not stopping:
            stopping = True
            _say("ending the mesh")
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        mesh = load_mesh(file)
        supervisor = MeshSupervisor(mesh, folder, file.resolve().parent)
        async with supervisor.running(lambda part: _say(f"  up: {part}")):
            _say(f"mesh {mesh.name}: http://{mesh.entry.address} is {mesh.entry.service}; Ctrl-C ends it")
            _say(f"developers' files: {folder.root / 'developers'}; logs: {folder.root / 'logs'}")
            if after:
                _say(after(mesh, folder))
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not stopping:
            raise
    finally:
        os.close(lock)
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
