"""The demo's story: the text for a newcomer, and the same steps played unattended, each with its real result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hairpin.demo.command import shop_folder
from hairpin.envoy.leash import leashed, suitable_leash
from hairpin.errors import HairpinError
from hairpin.mesh.command import load_mesh
from hairpin.mesh.state import MeshFolder
from hairpin.mesh.supervisor import MeshSupervisor
from hairpin.model.mesh import AGENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import TextIO

    from hairpin.model.mesh import Mesh

CART = "/?mug=2&shirt=2"
MIXED = 200
"""Requests, half with the environment's header."""
STEP_TIMEOUT = 60.0


def guide(mesh: Mesh, folder: MeshFolder) -> str:
    """What to type next, with this mesh's addresses."""
    entry, checkout = f"http://{mesh.entry.address}", _shown(your_copy(Path.cwd()))
    config = "" if len(mesh.developers) == 1 else f"--config {folder.developer(mesh.developers[0])} "
    return f"""
  The shop: entry -> frontend -> checkout -> inventory, a sidecar each, mutual TLS between them.

  1. Ask it:
       curl '{entry}{CART}'
     Each service says who it is: every "where" reads "cluster".

  2. In another terminal, take over checkout for the environment "alice":
       {_program()} run {config}--env alice --target checkout -- {_python()} {checkout}

  3. Ask again, as alice and as everyone else:
       curl -H 'x-env: alice' '{entry}{CART}'
       curl '{entry}{CART}'
     Alice's request was answered by the process in your terminal; its call to inventory left through the mesh.

  4. {checkout} is a copy of your own: edit total() in it, or put breakpoint() there; stop `hairpin run`
     with Ctrl-C, start it again, and ask as alice. Everyone else's requests go on while you look.

  5. Ctrl-C in that terminal gives everything back. Ctrl-C in this one ends the mesh.
"""


def your_copy(folder: Path) -> Path:
    """A checkout.py to edit, as the newcomer left it the last time: the mesh's own stays as it is."""
    copy = folder / "hairpin-shop" / "checkout.py"
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(shop_folder() / "checkout.py", copy)
    return copy


def _python() -> str:
    return "python" if shutil.which("python") else "python3"


def _program() -> str:
    """How this hairpin is called from where the user is."""
    return "hairpin" if shutil.which("hairpin") else _shown(Path(sys.executable).with_name("hairpin"))


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


class StoryError(HairpinError):
    """A step of the story did not hold."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the steps need."""

    out: TextIO
    mesh: Mesh
    folder: MeshFolder
    shop: Path

    def say(self, text: str) -> None:
        """One line of the story."""
        self.out.write(text + "\n")
        self.out.flush()

    def check(self, held: object, what: str, shown: object) -> None:
        """A result, and whether it is as told."""
        self.say(f"    {'ok' if held else 'NOT SO'}: {what}: {shown}")
        if not held:
            raise StoryError(f"the story did not hold: {what}: {shown}")

    async def ask(self, path: str = CART, environment: str | None = None) -> dict[str, Any]:
        """One request through the entry."""
        from aiohttp import ClientSession, ClientTimeout  # noqa: PLC0415

        headers = {"x-env": environment} if environment else {}
        async with ClientSession(timeout=ClientTimeout(total=30)) as client:
            async with client.get(f"http://{self.mesh.entry.address}{path}", headers=headers) as response:
                answer: dict[str, Any] = json.loads(await response.text())
        return answer


async def play(out: TextIO) -> int:
    """The whole story in a mesh of its own, in a folder that goes at the end. 0 if every step held."""
    with tempfile.TemporaryDirectory(prefix="hairpin-") as name:
        root = Path(name)
        shop = root / "shop"
        shutil.copytree(shop_folder(), shop, ignore=shutil.ignore_patterns("__pycache__"))
        mesh = load_mesh(shop / "mesh.yaml", any_entry=True)
        mesh = replace(mesh, developers=("alice", "bob"))
        folder = MeshFolder(root / "state")
        stage = Stage(out, mesh, folder, shop)
        stage.say("A mesh on this machine: control plane, agent, three services, a sidecar each.")
        async with MeshSupervisor(mesh, folder, shop).running(lambda line: stage.say(f"    up: {line}")):
            try:
                await _story(stage)
            except StoryError as error:
                stage.say(str(error))
                return error.exit_code
    stage.say("Every step held.")
    return 0


async def _story(stage: Stage) -> None:
    stage.say("\n1. Everyone's requests are answered by the cluster.")
    answer = await stage.ask()
    stage.check(_places(answer) == ["cluster"] * 3, "frontend, checkout, inventory answer from", _places(answer))
    before = _part(answer, "checkout")["total"]

    stage.say("\n2. alice changes checkout: 20 % off instead of 10 %. Nothing is built or deployed:")
    edited = stage.shop / "checkout_of_alice.py"
    source = (stage.shop / "checkout.py").read_text()
    edited.write_text(source.replace("discount = 0.10", "discount = 0.20"))
    arguments = ["--env", "alice", "--target", "checkout", "--", sys.executable, str(edited)]
    async with _hairpin_run(
        stage, "alice", arguments, shown=f"hairpin run --env alice --target checkout -- python {edited.name}"
    ):
        await _stolen(stage, before)
        await _egress(stage)
        await _mixed(stage)
        await _refused(stage)
        stage.say("\n7. Ctrl-C in alice's terminal:")
    answer = await stage.ask(environment="alice")
    stage.check(_places(answer) == ["cluster"] * 3, "alice's request is answered from", _places(answer))
    await _egress_only(stage)


async def _stolen(stage: Stage, before: float) -> None:
    stage.say("\n3. Requests with `x-env: alice` reach her process; the others don't.")
    alice, everyone = await stage.ask(environment="alice"), await stage.ask()
    stage.check(
        "laptop" in _place(alice, "checkout"), "with the header, checkout answers from", _place(alice, "checkout")
    )
    totals = (_part(alice, "checkout")["total"], _part(everyone, "checkout")["total"])
    stage.check(totals[0] < before == totals[1], "totals with and without the header", totals)


async def _egress(stage: Stage) -> None:
    stage.say(
        "\n4. Her process called inventory through the mesh: mutual TLS, the agent's identity, the header with it."
    )
    inventory = _part(await stage.ask(environment="alice"), "inventory")
    stage.check(
        inventory["caller"] == stage.mesh.identity(AGENT),
        "inventory's sidecar names as its caller",
        inventory["caller"],
    )
    stage.check(inventory["environment"] == "alice", "and passes on the environment", inventory["environment"])


async def _mixed(stage: Stage) -> None:
    stage.say(f"\n5. {MIXED} requests, mixed:")
    environments = ["alice" if index % 2 else None for index in range(MIXED)]
    gate = asyncio.Semaphore(8)

    async def one(environment: str | None) -> bool:
        async with gate:
            place = _place(await stage.ask(environment=environment), "checkout")
        return ("laptop" in place) == (environment is not None)

    results = await asyncio.gather(*map(one, environments))
    stage.check(all(results), "each answered where it belongs", f"{sum(results)} of {MIXED}")


async def _refused(stage: Stage) -> None:
    stage.say("\n6. bob claims the same requests:")
    arguments = ["--env", "alice", "--target", "checkout", "--port", "1"]
    process = await _start(stage, "bob", arguments)
    _, errors = await asyncio.wait_for(process.communicate(), STEP_TIMEOUT)
    last = errors.decode().strip().splitlines()[-1]
    stage.check(process.returncode == 4 and "alice" in last, "refused, and alice is named", last)  # noqa: PLR2004 # ConflictError


async def _egress_only(stage: Stage) -> None:
    stage.say("\n8. Egress only: bob takes nobody's requests, and calls inventory as the agent:")
    program = "import urllib.request as u; print(u.urlopen('http://inventory/').read().decode())"
    process = await _start(stage, "bob", ["--mode", "egress", "--quiet", "--", sys.executable, "-c", program])
    output, _ = await asyncio.wait_for(process.communicate(), STEP_TIMEOUT)
    caller = json.loads(output)["caller"] if process.returncode == 0 else output.decode()
    stage.check(caller == stage.mesh.identity(AGENT), "inventory's sidecar names as its caller", caller)


@contextlib.asynccontextmanager
async def _hairpin_run(stage: Stage, user: str, arguments: list[str], *, shown: str) -> AsyncIterator[None]:
    """`hairpin run` in the background; Ctrl-C at the end."""
    stage.say(f"    $ {shown}")
    process = await _start(stage, user, arguments)
    try:
        async with asyncio.timeout(STEP_TIMEOUT):
            await _taken_over(stage, process)
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(_drain(process))
            yield
            process.send_signal(signal.SIGINT)
            code = await asyncio.wait_for(process.wait(), STEP_TIMEOUT)
            reader.cancel()
        stage.say(f"    hairpin run exited with {code}")
    except TimeoutError:
        raise StoryError("hairpin run did not take over within a minute") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _taken_over(stage: Stage, process: asyncio.subprocess.Process) -> None:
    assert process.stderr  # noqa: S101 # it is a pipe
    while True:
        line = (await process.stderr.readline()).decode()
        if not line:
            raise StoryError(f"hairpin run ended with {await process.wait()} before it took anything over")
        stage.say(f"    {line.rstrip()}")
        if "takes the requests" in line:
            return


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr  # noqa: S101 # it is a pipe
    while await process.stderr.readline():
        pass


async def _start(stage: Stage, user: str, arguments: list[str]) -> asyncio.subprocess.Process:
    config = str(stage.folder.developer(user))
    command = [sys.executable, "-m", "hairpin", "run", "--config", config, *arguments]
    leash = suitable_leash()
    if leash == "signal":  # the other kind would need its stdin
        command = leashed(command, leash)
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "USER": user},
        start_new_session=True,  # of our terminal's foreground, its command would get Ctrl-C from the terminal
    )


def _parts(answer: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [answer]
    while isinstance(parts[-1].get("downstream"), dict):
        parts.append(parts[-1]["downstream"])
    return parts


def _part(answer: dict[str, Any], service: str) -> dict[str, Any]:
    found = next((part for part in _parts(answer) if part.get("service") == service), None)
    if found is None:
        raise StoryError(f"no answer of {service} in {answer}")
    return found


def _place(answer: dict[str, Any], service: str) -> str:
    return str(_part(answer, service)["where"])


def _places(answer: dict[str, Any]) -> list[str]:
    """Where each service answered from; what was wrong, if something was."""
    errors = [f"{part.get('service')}: {part['error']}" for part in _parts(answer) if "error" in part]
    return errors or [str(part.get("where")) for part in _parts(answer)]
