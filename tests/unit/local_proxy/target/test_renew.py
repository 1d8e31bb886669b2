"""Copies of files, and how they follow the cluster."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.errors import UnavailableError
from local_proxy.target import renew
from local_proxy.target.copies import copy_places, write_copies
from local_proxy.target.read import Found
from local_proxy.target.volumes import File, Mount

CONFIG = {"name": "v", "configMap": {"name": "app"}}


def found(files, *mounts, how="its spec: no right to exec", tokens=()):
    made = {path: File(text) for path, text in files.items()}
    return Found("p-1", "app", how, {}, made, tuple(mounts), tokens=tokens)


def shown(folder):
    """What a program sees in a folder, names that begin with two dots aside."""
    found = {}
    for at, _, names in os.walk(folder, followlinks=True):
        inside = Path(at).relative_to(folder)
        if not str(inside).startswith(".."):
            found |= {str(inside / name): Path(at, name).read_bytes() for name in names}
    return found


NAME = st.text("abc", min_size=1, max_size=2)
VOLUME = st.dictionaries(
    st.lists(NAME, min_size=1, max_size=2).map("/".join), st.binary(max_size=3), max_size=4
).filter(lambda files: not any(other.startswith(f"{name}/") for name in files for other in files))


@settings(max_examples=50)
@given(versions=st.lists(VOLUME, min_size=1, max_size=4))
def test_a_volume_shows_its_last_version_and_one_folder_holds_it(versions, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for number, files in enumerate(versions):
        mount = Mount("/etc/app", "", CONFIG)
        write_copies(found({f"/etc/app/{name}": data for name, data in files.items()}, mount), root, again=number > 0)
        assert shown(root / "etc/app") == files
    folder = root / "etc/app"
    (version,) = [entry for entry in folder.iterdir() if entry.name.startswith("..2")]
    assert (folder / "..data").readlink() == Path(version.name)


def test_what_has_not_changed_stays_the_same_folder(tmp_path):
    volume = found({"/etc/app/a": b"1"}, Mount("/etc/app", "", CONFIG))
    write_copies(volume, tmp_path)
    before = (tmp_path / "etc/app/..data").readlink()
    write_copies(volume, tmp_path, again=True)
    assert (tmp_path / "etc/app/..data").readlink() == before


def test_a_sub_path_stays_as_it_was_as_in_the_pod(tmp_path):
    mounts = (Mount("/etc/one.conf", "a", CONFIG), Mount("/etc/app", "", CONFIG), Mount("/etc/none", "b", CONFIG))
    write_copies(found({"/etc/one.conf": b"1", "/etc/app/a": b"1"}, *mounts), tmp_path)
    again = found({"/etc/one.conf": b"2", "/etc/app/a": b"2"}, *mounts)
    write_copies(again, tmp_path, again=True)
    assert (tmp_path / "etc/one.conf").read_bytes() == b"1"
    assert (tmp_path / "etc/app/a").read_bytes() == b"2"
    assert not (tmp_path / "etc/one.conf").is_symlink()
    assert copy_places(again, tmp_path).keys() == {"/etc/one.conf", "/etc/app"}


def test_a_mount_in_a_volume_survives_its_changes(tmp_path):
    mounts = (Mount("/etc/app", "", CONFIG), Mount("/etc/app/tls", "", CONFIG), Mount("/etc/app/x/in", "", CONFIG))
    files = {"/etc/app/x/a": b"1", "/etc/app/tls/key": b"k", "/etc/app/x/in/b": b"b"}
    write_copies(found(files, *mounts), tmp_path)
    changed = files | {"/etc/app/x/a": b"2"}
    write_copies(found(changed, *mounts), tmp_path, again=True)
    for path, data in changed.items():
        assert (tmp_path / path[1:]).read_bytes() == data


def test_an_empty_volume_is_an_empty_folder(tmp_path):
    write_copies(found({}, Mount("/etc/app", "", CONFIG)), tmp_path)
    assert shown(tmp_path / "etc/app") == {}


class Cluster:
    """Stands for a reader: what is in the cluster, and how often it was read."""

    def __init__(self, content):
        self.content = content
        self.version = 1
        self.reads = self.looks = 0
        self.broken = False

    async def marks(self):
        self.looks += 1
        if self.broken:
            raise UnavailableError("the API server is away")
        return {"ConfigMap app": str(self.version)}

    async def read(self):
        self.reads += 1
        return self.content


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@contextlib.asynccontextmanager
async def kept_fresh(cluster, root, clock=None):
    told = []
    write_copies(cluster.content, root)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            renew.keep_fresh(cluster, cluster.content, root, told.append, clock=clock or Clock(), look_seconds=0.001)
        )
        yield told
        task.cancel()


async def looked(cluster, times=3):
    until = cluster.looks + times
    async with asyncio.timeout(30):
        while cluster.looks < until:
            await asyncio.sleep(0.001)


def volume(text, **more):
    return found({"/etc/app/a": text}, Mount("/etc/app", "", CONFIG), **more)


async def test_a_change_is_brought_and_nothing_is_read_without_one(tmp_path):
    cluster = Cluster(volume(b"1"))
    async with kept_fresh(cluster, tmp_path):
        await looked(cluster)
        assert cluster.reads == 0
        cluster.content, cluster.version = volume(b"2"), 2
        await looked(cluster)
    assert (tmp_path / "etc/app/a").read_bytes() == b"2"
    assert cluster.reads == 1


async def test_by_exec_the_kubelet_is_given_its_time(tmp_path):
    cluster, clock = Cluster(volume(b"1", how="exec")), Clock()
    async with kept_fresh(cluster, tmp_path, clock):
        await looked(cluster)
        cluster.version = 2  # the pod has not got it yet
        await looked(cluster)
        assert cluster.reads >= 1
        cluster.content = volume(b"2", how="exec")
        await looked(cluster)
        assert (tmp_path / "etc/app/a").read_bytes() == b"2"
        clock.now += renew.LAG_SECONDS + 1
        await looked(cluster)
        reads = cluster.reads
        await looked(cluster)
    assert cluster.reads == reads


def token(issued, ends):
    claims = base64.urlsafe_b64encode(json.dumps({"iat": issued, "exp": ends}).encode()).rstrip(b"=")
    return b"e30." + claims + b".x"


async def test_a_token_is_renewed_when_four_fifths_of_its_life_are_over(tmp_path):
    def with_token(data):
        return found({"/run/t": data}, Mount("/run", "", CONFIG), tokens=("/run/t",))

    clock = Clock()
    cluster = Cluster(with_token(token(1000, 1600)))
    async with kept_fresh(cluster, tmp_path, clock):
        await looked(cluster)
        clock.now = 1479
        await looked(cluster)
        assert cluster.reads == 0
        cluster.content = with_token(token(1480, 2080))
        clock.now = 1480
        await looked(cluster)
        assert cluster.reads == 1
    assert (tmp_path / "run/t").read_bytes() == token(1480, 2080)


async def test_a_failure_is_told_once_and_the_next_change_is_brought(tmp_path):
    cluster = Cluster(volume(b"1"))
    async with kept_fresh(cluster, tmp_path) as told:
        await looked(cluster)
        cluster.broken = True
        await looked(cluster, 5)
        cluster.content, cluster.version, cluster.broken = volume(b"2"), 2, False
        await looked(cluster)
    assert told == ["the target's files are not kept fresh: the API server is away; trying on"]
    assert (tmp_path / "etc/app/a").read_bytes() == b"2"


def test_a_volume_without_a_token_file_has_no_end():
    assert renew._pause(dataclasses.replace(volume(b"1"), tokens=("/gone",)), 0) == pytest.approx(3600)
