"""`hairpin run` without flags: the repository's hairpin.yaml has them."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.mesh import ROOT

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]


async def test_a_service_of_the_file_is_served_without_flags(mesh, tmp_path):
    echo = [sys.executable, "-m", "tests.support.echo", "--name", "laptop by file"]
    file = tmp_path / "hairpin.yaml"
    file.write_text(
        "env: ${ENV_OF_MINE}\nservices:\n"
        f"  checkout: {{target: 'checkout:http', command: {json.dumps(echo)}, folder: {json.dumps(str(ROOT))}}}\n"
        "  inventory: {target: inventory}\n"
    )
    arguments = ("run", "checkout", "--file", str(file))
    async with mesh.hairpin("alice", *arguments, environment={"ENV_OF_MINE": "alice"}) as run:
        await run.said(r"settings: .*hairpin\.yaml, service checkout")
        await run.said("takes the requests")
        await mesh.answered_by("laptop by file", "alice")
        assert (await mesh.ask("bob"))["who"] == "checkout"
        mine = await mesh.command("alice", "sessions", "--file", str(file), environment={"ENV_OF_MINE": ""})
        assert mine.output[1].split()[:2] == [await run.session(), "alice"]
        file.write_text(file.read_text() + "namespace: elsewhere\n")
        elsewhere = await mesh.command("alice", "sessions", "--file", str(file))
        assert elsewhere.output == ["no sessions: all requests are answered by the cluster"]
        assert any(line.startswith("settings: ") for line in elsewhere.errors)
