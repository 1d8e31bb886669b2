import asyncio
import base64
import dataclasses
import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.kubernetes.errors import ApiForbiddenError
from local_proxy import private
from local_proxy.mounts.plan import Plan
from local_proxy.mounts.reasons import CannotMountError
from local_proxy.private import LOCK, PREFIX, UNLOCKED_SECONDS, private_folder, sweep
from local_proxy.target.given import Given, Reading, target_given
from local_proxy.target.options import FilesMode, From, TargetOptions
from local_proxy.target.paths import rewritten, under
from local_proxy.target.pods import choose_container, choose_pod, selector_text
from local_proxy.target.read import Found
from local_proxy.target.renew import pause
from local_proxy.target.rules import Rules, choose
from local_proxy.target.spec import Left
from local_proxy.target.volumes import File, Mount

ROOT = Path("/run/x/root")


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("/etc/app", "/run/x/root/etc/app"),
        ("/etc/app/a.yaml", "/run/x/root/etc/app/a.yaml"),
        ("/usr/share:/etc/app", "/usr/share:/run/x/root/etc/app"),
        ("-Dconf=/etc/app/a -Dx=1", "-Dconf=/run/x/root/etc/app/a -Dx=1"),
        ("file:///etc/app/ca.pem", "file:///run/x/root/etc/app/ca.pem"),
        ("/etc/app/tls/key", "/run/x/root/etc/app/tls/key"),
        ("/etc/apple", "/etc/apple"),
        ("/srv/etc/app", "/srv/etc/app"),
        ("http://host/etc/app", "http://host/etc/app"),
        ("/etc/app.d", "/etc/app.d"),
    ],
)
def test_paths_of_mounts_lead_to_the_copies(value, made):
    variables, changed = rewritten({"V": value, "N": "1"}, ["/etc/app", "/etc/app/tls"], ROOT)
    assert variables == {"V": made, "N": "1"}
    assert changed == (("V",) if value != made else ())


@pytest.mark.parametrize("path", ["/../x", "/a/../../x", "/"])
def test_no_copy_is_outside_the_root(path):
    with pytest.raises(ValueError, match="no path in a container"):
        under(ROOT, path)


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LC_ALL", "JAVA_HOME", "PYTHONPATH", "npm_config_x", "LD_PRELOAD", "HOSTNAME"]
)
def test_what_says_what_this_machine_is_like_stays_local(name):
    assert choose({name: "x", "DB": "y"}, Rules()).taken == {"DB": "y"}
    assert choose({name: "x"}, Rules(include=(name,))).taken == {name: "x"}


def test_the_users_globs_go_first_and_the_way_into_the_mesh_is_ours():
    variables = {"DB_HOST": "1", "DB_PASSWORD": "2", "MODE": "3", "HTTP_PROXY": "4", "HAIRPIN_ENV": "5"}
    assert choose(variables, Rules(exclude=("DB_*",))).taken == {"MODE": "3"}
    assert choose(variables, Rules(("DB_*",), ("*",))).taken == {"DB_HOST": "1", "DB_PASSWORD": "2"}
    assert choose(variables, Rules(include=("*",))).local == ("HAIRPIN_ENV", "HTTP_PROXY")


class Fake:
    def __init__(self, found):
        self.found = found

    async def read(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def marks(self):
        return {}


FOUND = Found(
    pod="checkout-1",
    container="app",
    how="exec",
    variables={"PATH": "/bin", "CONF": "/etc/app/a", "MODE": "fast"},
    files={"/etc/app/a": File(b"\x00x", 0o755), "/etc/app/in/b": File(b"b", 0o444)},
    mounts=(Mount("/etc/app", "", {"name": "v", "configMap": {}}),),
    uncopied=("/data (persistentVolumeClaim)",),
)


async def given_of(options, found, folder, **more):
    wanted = options.env_from is not From.OFF or options.files is not FilesMode.OFF
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = Reading(Fake(found) if wanted else None, tasks)
            async with target_given(options, reading, folder, lambda _: None, **more) as given:
                return given
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def test_variables_and_files_are_given(tmp_path):
    given = await given_of(TargetOptions(), FOUND, tmp_path)
    root = tmp_path / "root"
    assert given.variables == {"CONF": f"{root}/etc/app/a", "MODE": "fast", "HAIRPIN_ROOT": str(root)}
    assert (root / "etc/app/a").read_bytes() == b"\x00x"
    assert stat.S_IMODE((root / "etc/app/a").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "etc/app/in/b").stat().st_mode) == 0o400
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (root, root / "etc", root / "etc/app/in"))
    assert (root / "etc/app/a").readlink() == Path("..data/a")  # as a kubelet has it
    assert given.notes == (
        "environment: 2 variables of pod checkout-1, container app, by exec; local stay PATH",
        f"files: 2 copies under {root} (HAIRPIN_ROOT); CONF lead there",
        "no copy is made of /data (persistentVolumeClaim)",
    )


async def test_a_key_may_be_as_long_as_a_configmap_has_it(tmp_path):
    path = f"/etc/app/{'k' * 253}"
    await given_of(TargetOptions(), dataclasses.replace(FOUND, files={path: File(b"x")}), tmp_path)
    assert under(tmp_path / "root", path).read_bytes() == b"x"


@pytest.mark.parametrize("mode", [FilesMode.AUTO, FilesMode.REWRITE, FilesMode.MOUNT])
async def test_copies_that_find_no_room_are_no_reason_not_to_start_unless_demanded(tmp_path, monkeypatch, mode):
    def write(*_, **__):
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("local_proxy.target.given.write_copies", write)
    options = TargetOptions(files=mode)
    if mode is FilesMode.AUTO:
        given = await given_of(options, FOUND, tmp_path)
        assert given.variables == {"CONF": "/etc/app/a", "MODE": "fast"}
        assert f"files: none, since copies can't be written to {tmp_path}: No space left on device" in given.notes
    else:
        with pytest.raises(InvalidFieldError, match="No space left"):
            await given_of(options, FOUND, tmp_path)
    assert not (tmp_path / "root").exists()


async def test_off_is_off(tmp_path):
    off = TargetOptions(env_from=From.OFF, files=FilesMode.OFF)
    assert (await given_of(off, HairpinError("never asked"), tmp_path)).variables == {}
    files_off = await given_of(TargetOptions(files=FilesMode.OFF), FOUND, tmp_path)
    assert files_off.variables == {"CONF": "/etc/app/a", "MODE": "fast"}
    assert not (tmp_path / "root").exists()


async def test_what_may_not_be_read_is_told_and_is_an_error_where_it_was_demanded(tmp_path):
    (note,) = (await given_of(TargetOptions(), HairpinError("no pod runs"), tmp_path)).notes
    assert "not used: no pod runs" in note
    refused = ApiForbiddenError(403, "Forbidden", "you may not list pods")
    assert await given_of(TargetOptions(), refused, tmp_path) == Given()
    with pytest.raises(
        HairpinError, match=r"^--env-from: you may not list pods; the ClusterRole hairpin-target-exec or"
    ):
        await given_of(TargetOptions(env_from=From.TARGET, asked="--env-from"), refused, tmp_path)
    part = dataclasses.replace(FOUND, left=(Left("variable X", "Secret db: you may not read it"),))
    assert (
        "left out: variable X (Secret db: you may not read it)"
        in (await given_of(TargetOptions(), part, tmp_path)).notes
    )
    with pytest.raises(InvalidFieldError, match=r"--env-from: 'target' can't be had whole: variable X"):
        await given_of(TargetOptions(env_from=From.TARGET, asked="--env-from"), part, tmp_path)
    with pytest.raises(InvalidFieldError, match=r"--files: 'mount' can't be had whole: variable X"):
        await given_of(TargetOptions(files=FilesMode.MOUNT, asked="--files"), part, tmp_path)


class Mounted:
    """Stands for the process that becomes the command."""

    def __init__(self, why=""):
        self.why = why
        self.plans = []

    async def __call__(self, stage, planned):
        assert stage.is_dir()
        self.plans.append(planned)
        if self.why:
            raise CannotMountError(self.why)


MOUNTED = dataclasses.replace(
    FOUND,
    variables={"CONF": "/etc/hairpin-x/a", "OTHER": "/etc/b"},
    files={"/etc/hairpin-x/a": File(b"a"), "/etc/b": File(b"b")},
    mounts=(
        Mount("/etc/hairpin-x", "", {"name": "v", "configMap": {}}),
        Mount("/etc", "", {"name": "w", "secret": {}}),
    ),
    uncopied=(),
)


@pytest.mark.skipif(os.geteuid() != 0 and os.access("/etc", os.W_OK), reason="/etc is this user's")
async def test_files_are_mounted_where_they_can_be_and_variables_lead_to_the_others(tmp_path):
    mount = Mounted()
    only = dataclasses.replace(MOUNTED, mounts=MOUNTED.mounts[:1], files={"/etc/hairpin-x/a": File(b"a")})
    given = await given_of(TargetOptions(), only, tmp_path, mount=mount)
    root = tmp_path / "root"
    copy = str(root / "etc/hairpin-x")
    assert mount.plans == [Plan(("/etc",), (("/etc/hairpin-x", True),), ((copy, "/etc/hairpin-x"),))]
    assert given.variables == {"CONF": "/etc/hairpin-x/a", "OTHER": "/etc/b", "HAIRPIN_ROOT": str(root)}
    assert given.notes[1] == (f"files: 1, for the command alone at /etc/hairpin-x (copies of {root}, HAIRPIN_ROOT)")


async def test_what_can_not_be_mounted_is_an_error_only_where_it_was_demanded(tmp_path):
    files = {"/etc/b": File(b"b")}
    part = dataclasses.replace(MOUNTED, mounts=MOUNTED.mounts[1:], files=files)
    given = await given_of(TargetOptions(), part, tmp_path, mount=Mounted())
    assert given.variables["OTHER"] == f"{tmp_path}/root/etc/b"
    assert (
        "they are not mounted: /etc (it would hide what programs need on this machine); CONF, OTHER lead there"
        in given.notes[1]
    )
    demanded = TargetOptions(files=FilesMode.MOUNT, asked="--files")
    with pytest.raises(InvalidFieldError, match=r"--files: 'mount' can't be done: /etc \(it would hide"):
        await given_of(demanded, part, tmp_path, mount=Mounted())
    only = dataclasses.replace(MOUNTED, mounts=MOUNTED.mounts[:1], files={"/etc/hairpin-x/a": File(b"a")})
    refused = await given_of(TargetOptions(), only, tmp_path, mount=Mounted("no namespaces"))
    assert refused.variables["CONF"] == f"{tmp_path}/root/etc/hairpin-x/a"
    assert "; they are not mounted: no namespaces; CONF lead there" in refused.notes[1]
    with pytest.raises(InvalidFieldError, match="no namespaces"):
        await given_of(demanded, only, tmp_path, mount=Mounted("no namespaces"))
    with pytest.raises(InvalidFieldError, match="only Linux"):
        await given_of(demanded, only, tmp_path)
    kept = Mounted()
    rewriting = TargetOptions(files=FilesMode.REWRITE, asked="--files")
    assert (await given_of(rewriting, only, tmp_path, mount=kept)).variables["CONF"].startswith(str(tmp_path))
    assert not kept.plans


def token(issued, ends):
    claims = base64.urlsafe_b64encode(json.dumps({"iat": issued, "exp": ends}).encode()).rstrip(b"=")
    return b"e30." + claims + b".x"


def test_tokens_are_renewed_before_their_end_and_looked_at_each_hour():
    assert pause([token(0, 1000), token(0, 5000)], 100) == 700
    assert pause([token(0, 1000)], 990) == 30
    assert pause([token(0, 10**9)], 0) == 3600
    assert pause([b"no token"], 0) == 3600


def pod(name, *, ready=True, created="2026-01-01T00:00:00Z", phase="Running", **metadata):
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "creationTimestamp": created, **metadata},
        "status": {"phase": phase, "conditions": conditions},
    }


def test_the_youngest_ready_pod_is_chosen():
    old, new = pod("old"), pod("new", created="2026-01-02T00:00:00Z")
    assert choose_pod([old, new]) is new
    assert choose_pod([old, pod("x", ready=False, created="2026-01-03T00:00:00Z")]) is old
    assert choose_pod([pod("x", phase="Pending"), pod("y", deletionTimestamp="now")]) is None


def test_the_applications_container_is_chosen():
    proxy = {"name": "istio-proxy", "ports": [{"containerPort": 15090}]}
    log, app = {"name": "log"}, {"name": "app", "ports": [{"containerPort": 8080, "name": "web"}]}
    found = {"metadata": {"name": "p"}, "spec": {"containers": [proxy, log, app]}}
    assert choose_container(found, None, "web") is app
    assert choose_container(found, None, 8080) is app
    assert choose_container(found, None, None) is log
    assert choose_container(found, "istio-proxy", None) is proxy
    annotated = {**found, "metadata": {"name": "p", "annotations": {"kubectl.kubernetes.io/default-container": "app"}}}
    assert choose_container(annotated, None, None) is app
    with pytest.raises(HairpinError, match="it has istio-proxy, log, app"):
        choose_container(found, "nope", None)


def test_selectors():
    expressions = [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "b", "operator": "NotIn", "values": ["3"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    text = selector_text({"matchLabels": {"app": "x"}, "matchExpressions": expressions})
    assert text == "app=x,a in (1,2),b notin (3),c,!d"


def test_a_private_folder_is_its_owners_and_gone_at_the_end(tmp_path):
    with private_folder({"XDG_RUNTIME_DIR": str(tmp_path)}) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder not in sweep([folder.parent])  # it is in use
        assert [entry.name for entry in folder.iterdir()] == [LOCK]
        (folder / "secret").write_text("x")
    assert not folder.exists()


def test_a_private_folder_is_not_swept_while_it_is_being_made(tmp_path, monkeypatch):
    """Several commands start at once, from an IDE: one sweeps just before another has locked its folder."""
    monkeypatch.setattr(private, "places", lambda _: [tmp_path])
    lock = fcntl.flock

    def sweeping(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", lock)
        assert sweep([tmp_path]) == []
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweeping)
    with private_folder() as folder:
        assert folder.parent == tmp_path
        assert fcntl.flock is lock
        assert folder.is_dir()
        assert sweep([folder.parent]) == []


def test_what_dead_processes_left_is_swept_and_nothing_else(tmp_path):
    def made(name, *, locked=False):
        folder = tmp_path / f"{PREFIX}{name}"
        folder.mkdir(mode=0o700)
        if locked:
            (folder / LOCK).touch()
        return folder

    dead, alive, young, old = made("dead", locked=True), made("alive", locked=True), made("young"), made("old")
    os.utime(old, (0, 0))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    lock = os.open(alive / LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert sweep([tmp_path, tmp_path / "missing"]) == [dead, old]
    assert alive.exists()
    assert elsewhere.exists()
    os.close(lock)
    assert sweep([tmp_path], now=young.stat().st_mtime + UNLOCKED_SECONDS + 1) == [alive, young]
