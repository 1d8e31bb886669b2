"""What a user reads, and with which exit code a command ends, when something is wrong."""

from __future__ import annotations

import asyncio
import getpass
import shutil
import signal
import socket

import pytest
import yaml

from hairpin.ports import free_ports
from tests.support.mesh import ROOT

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(90)]

RUN = ("run", "--env", "alice", "-t", "checkout:http")
TRUE = ("--", "true")


async def nothing_is_claimed(mesh):
    assert (await mesh.api("alice", "GET", "/v1/sessions"))[1] == {"items": []}


async def check(mesh, arguments, code, *told, **more):
    """A command that fails: nothing on stdout, what is told in one message on stderr, and nothing claimed by it."""
    run = await mesh.command("alice", *arguments, **more)
    message = "\n".join(run.errors)
    assert (run.process.returncode, run.output) == (code, []), message
    assert message.startswith("hairpin: "), message  # nothing was begun before it
    assert "Traceback" not in message
    for words in told:
        assert words in message
    await nothing_is_claimed(mesh)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*RUN, "--port", "abc", *TRUE), ["--port: 'abc'", "1 to 65535"]),
        ((*RUN, "--port", "65536", *TRUE), ["--port: '65536'", "1 to 65535"]),
        ((*RUN, "--egress-port", "0", *TRUE), ["--egress-port: '0'", "1 to 65535"]),
        ((*RUN, "--egress-port", "8081", "--port", "8081", *TRUE), ["--egress-port: 8081", "choose another"]),
        ((*RUN, "--lease", "soon", *TRUE), ["--lease: 'soon'", "1 to 3600 seconds"]),
        ((*RUN, "--local", "http://x", *TRUE), ["--local: 'http://x'", "without scheme or user"]),
        ((*RUN, "--mode", "steel", *TRUE), ["--mode: 'steel' is no choice", "steal, mirror, egress"]),
        (("run", "--env", "alice", *TRUE), ["--target names nothing whose requests to take; write --target NAME"]),
        (("run", "-t", "checkout:http", *TRUE), ["--env leaves open which requests to take; write --env NAME", "--match"]),
        (("run", "--env", "a b", "-t", "checkout:http", *TRUE), ["'a b' is not an environment's name"]),
        (RUN, ["COMMAND is missing; put it after --"]),
        (("run", "--mode", "egress", "-t", "checkout", *TRUE), ["--target: 'checkout' has no meaning in mode egress"]),
        (("run", "--mode", "egress", "--match", "path /", *TRUE), ["--match: 'path /' has no meaning in mode egress"]),
        ((*RUN, "--match", "header", *TRUE), ["--match: 'header'", "header x-user=42", "\n  header\n        ^"]),
        ((*RUN, "--match", "hedder x=1", *TRUE), ["did you mean `header`?", "\n  hedder x=1\n  ^^^^^^"]),
        ((*RUN, "--match", "header x~(", *TRUE), ["--match: '('", "\n  header x~(\n           ^"]),
        ((*RUN, "--match", "header x~(?=a)", *TRUE), ["'(?=a)' has a group that RE2 or we don't have"]),
        ((*RUN, "--match", "path ~(a{100}){100}", *TRUE), ["'(a{100}){100}' repeats too often", "1000"]),
        ((*RUN, "--prot", "80", *TRUE), ["run has no flag --prot; did you mean --port?"]),
        ((*RUN, "true"), ["'true' is not a flag; a command to run comes after --"]),
        (("run", "--env", "alice", "-t", "svk/checkout", *TRUE), ["--target: 'svk/checkout'", "unknown kind 'svk'"]),
        (("run", "--env", "alice", "-t", "deployment/checkout:http", *TRUE), ["'deployment'", "name a service"]),
        (("run", "--env", "alice", "-t", "checkout:81", *TRUE), ["81 is not a port of it", "80 (http), 9090 (grpc)"]),
        (("run", "--env", "alice", "-t", "checkout:htp", *TRUE), ["'htp' is not a port of it", "80 (http), 9090 (grpc)"]),
        (("run", "--env", "alice", "-t", "checkout", *TRUE), ["--target lacks a port; checkout has several: 80 (http), 9090 (grpc)"]),
        (("runn",), ["'runn' is not a command; did you mean run?"]),
        (("stop",), ["NAME is missing", "--all"]),
        (("sessions", "-o", "xml"), ["invalid choice: 'xml'", "table"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
async def test_what_is_wrong_with_a_command_line(mesh, arguments, told):
    await check(mesh, arguments, 2, *told)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("-t", "checkot:http", *TRUE), 3, ["no service 'checkot'", "did you mean 'checkout'?", "frontend"]),
        (("-t", "checkout:http", "-n", "shop", *TRUE), 3, ["no namespace 'shop'", "'default'"]),
        (("-t", "checkout:http", "--", "no-such-command"), 127, ["no-such-command: command not found"]),
        (("-t", "checkout:http", "--", "./no-such-file"), 127, ["./no-such-file: no such file"]),
        (("-t", "checkout:http", "--", "./README.md"), 126, ["./README.md: is not executable", "chmod +x"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_is_not_there(mesh, arguments, code, told):
    await check(mesh, ("run", "--env", "alice", *arguments), code, *told)


async def test_a_taken_egress_port(mesh):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        await check(
            mesh,
            (*RUN, "--egress-port", port, *TRUE),
            2,
            f"--egress-port: {port}",
            "Address already in use",
            "free one",
        )


async def test_a_missing_envoy(mesh, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    told = (f"HAIRPIN_ENVOY: '{nowhere}' does not exist", "unset HAIRPIN_ENVOY")
    await check(mesh, (*RUN, *TRUE), 2, *told, environment={"HAIRPIN_ENVOY": nowhere})
    up = ("mesh", "up", str(mesh_file(tmp_path)), "--state", str(tmp_path / "state"))
    await check(mesh, up, 2, *told, environment={"HAIRPIN_ENVOY": nowhere})


async def test_a_program_that_is_no_envoy(mesh):
    run = await mesh.command("alice", *RUN, *TRUE, environment={"HAIRPIN_ENVOY": "/bin/true"})
    assert run.process.returncode == 1
    assert "the laptop's Envoy: Envoy ended with exit code 0" in run.error
    await nothing_is_claimed(mesh)


async def test_no_mesh_at_all(mesh, tmp_path):
    nobody = {"HAIRPIN_CONFIG": "", "XDG_STATE_HOME": str(tmp_path)}
    for arguments in ((*RUN, *TRUE), ("sessions",), ("stop", "--all"), ("mesh", "status")):
        await check(mesh, arguments, 3, "no mesh found", "`hairpin mesh up`", "--config", environment=nobody)


async def test_a_mesh_that_has_no_file_for_this_user(mesh, tmp_path):
    folder = tmp_path / "hairpin" / "mesh" / "developers"
    shutil.copytree(mesh.folder.root / "developers", folder)
    nobody = {"HAIRPIN_CONFIG": "", "XDG_STATE_HOME": str(tmp_path), "USER": "mallory", "LOGNAME": "mallory"}
    await check(
        mesh, (*RUN, *TRUE), 3, "no file mallory.yaml for you", "alice.yaml, bob.yaml", "--config", environment=nobody
    )


@pytest.mark.parametrize("mode", [0o640, 0o604])
async def test_a_developers_file_that_others_can_read(mesh, tmp_path, mode):
    file = tmp_path / "alice.yaml"
    shutil.copy(mesh.folder.developer("alice"), file)
    file.chmod(mode)
    await check(mesh, (*RUN, "--config", str(file), *TRUE), 1, f"its mode is {mode:04o}", f"`chmod 600 {file}`")


def changed(mesh, tmp_path, **fields):
    """alice's file with other fields."""
    file = tmp_path / "changed.yaml"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(yaml.safe_load(mesh.folder.developer("alice").read_text()) | fields))
    return ("--config", str(file))


async def test_a_control_plane_that_is_down(mesh, tmp_path):
    server = f"https://127.0.0.1:{next(free_ports())}"
    down = changed(mesh, tmp_path, server=server)
    for arguments in ((*RUN, *down, *TRUE), ("sessions", *down), ("stop", "--all", *down), ("mesh", "status", *down)):
        await check(mesh, arguments, 5, f"the control plane at {server}", "is the mesh up?")


async def test_something_else_in_the_place_of_the_control_plane(mesh, tmp_path):
    server = f"https://{mesh.mesh.entry.address}"
    await check(mesh, (*RUN, *changed(mesh, tmp_path, server=server), *TRUE), 5, f"the control plane at {server}")


async def test_a_file_of_another_mesh(mesh, tmp_path):
    other = (mesh.folder.root / "mesh-ca.pem").read_text()
    made_anew = changed(mesh, tmp_path, certificateAuthorityData=other)
    await check(mesh, (*RUN, *made_anew, *TRUE), 5, "is not the mesh that your file is for", "take the file")
    await check(mesh, (*RUN, *changed(mesh, tmp_path, token="old"), *TRUE), 1, "the token is not known here")


@pytest.mark.parametrize(("offset", "told"), [("+1h", "60 minutes ahead"), ("-1h", "60 minutes behind")])
async def test_a_clock_that_is_an_hour_off(mesh, offset, told):
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed (Debian: apt install faketime)")
    wrapper = (faketime, "-f", offset)
    # The wall clock alone: timers go by the other one.
    timers = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    await check(
        mesh, (*RUN, *TRUE), 1, "this machine's clock is", told, "set the clock", wrapper=wrapper, environment=timers
    )


async def test_a_large_regular_expression_is_served_and_one_that_is_refused_harms_nobody(mesh):
    large = ("--match", "path ~/(([a-z]{1,30}){1,30})")  # larger than Envoy takes by itself
    async with mesh.laptop("bob", "bob", *large):
        bad = {"path": {"kind": "regex", "value": "("}}
        for match in ({"path": {"regex": "("}}, {"path": {"regex": "(?=a)"}}, {"path": {"regex": "a{1001}"}}, bad):
            spec = {
                "mode": "steal",
                "environment": "x",
                "target": {"kind": "service", "name": "checkout", "port": "http"},
            }
            status, body = await mesh.api("alice", "POST", "/v1/sessions", {"spec": {**spec, "match": match}})
            assert status == 422, body
            assert body["details"]["field"].startswith("spec.match.path"), body
        async with mesh.laptop("alice", "alice"):
            assert (await mesh.ask("alice"))["who"] == "laptop of alice"
            assert (await mesh.ask("bob", path="/orders"))["who"] == "laptop of bob"
            assert (await mesh.ask("bob", path="/ORDERS"))["who"] == "checkout"
    proxies = (await mesh.api("alice", "GET", "/v1/proxies"))[1]["items"]
    assert not [kind for proxy in proxies for kind in proxy["types"].values() if kind.get("nack")]


# `mesh up`


def mesh_file(folder, **entry):
    file = folder / "mesh.yaml"
    file.write_text(
        yaml.safe_dump({"entry": {"service": "app", **entry}, "services": {"app": {"ports": [{"port": 80}]}}})
    )
    return file


async def test_a_taken_entry_port(mesh, tmp_path):
    port = mesh.mesh.entry.address.port
    up = ("mesh", "up", str(mesh_file(tmp_path, port=port)), "--state", str(tmp_path / "state"))
    await check(mesh, up, 2, f"entry.port: {port} is taken", "another process", "mesh.yaml")


async def test_a_mesh_that_runs_from_the_same_folder_already(mesh, tmp_path):
    root = mesh.folder.root
    up = ("mesh", "up", str(mesh_file(tmp_path)), "--state", str(root))
    await check(mesh, up, 5, f"a mesh runs from {root} already", "--state")
    assert (await mesh.ask())["who"] == "checkout"  # which is not disturbed


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("services: {}", 2, ["services", "name at least one"]),
        ("services: {App: {}}", 2, ["'App'", "lower-case"]),
        ("services: {app: {prots: []}}", 2, ["services.app.prots", "ports"]),
        ("services: {app: {ports: [{port: 0}]}}", 2, ["services.app.ports[0].port", "1 to 65535"]),
        ("entry: {service: ap}\nservices: {app: {}}", 2, ["entry.service: 'ap'", "app"]),
        ("services: {app: {command: [no-such-command]}}", 1, ["app can't be started", "no program 'no-such-command'"]),
        ("services: [\n", 2, ["mesh.yaml:2:1", "is no YAML"]),
        (None, 3, ["mesh.yaml can't be read: No such file or directory"]),
    ],
)
async def test_what_is_wrong_with_a_mesh_file(mesh, tmp_path, text, code, told):
    file = tmp_path / "mesh.yaml"
    if text is not None:
        file.write_text(text)
    await check(mesh, ("mesh", "up", str(file), "--state", str(tmp_path / "state")), code, *told)


async def test_mesh_up_serves_and_ends_by_ctrl_c(mesh, tmp_path):
    """And `mesh status` shows what its proxies have, `hairpin run` finds its file by itself."""
    command = ["{python}", "-m", "tests.support.echo", "--name", "app", "--port", "{port}"]
    file = tmp_path / "mesh.yaml"
    file.write_text(yaml.safe_dump({"services": {"app": {"command": command}}}))
    mine = {
        "HAIRPIN_CONFIG": "",
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    async with mesh.hairpin("alice", "mesh", "up", str(file), environment=mine) as up:
        await up.said("Ctrl-C ends it")
        assert (tmp_path / "hairpin" / "mesh" / "developers" / f"{getpass.getuser()}.yaml").is_file()
        status = await mesh.command("alice", "mesh", "status", environment=mine)
        assert status.process.returncode == 0, status.errors
        assert sum("since" in line for line in status.output) == 4  # app's sidecar, the agent, its sidecar, the entry
        assert all("in step" in line for line in status.output if line.startswith("  "))
        run = await mesh.command("alice", "run", "--env", "alice", "-t", "app", *TRUE, environment=mine)
        assert run.process.returncode == 0, run.errors
        assert await asyncio.wait_for(up.end(signal.SIGINT), 30) == 0
    assert up.error == "ending the mesh"
