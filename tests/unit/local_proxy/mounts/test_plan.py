import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.mounts.plan import Plan, plan
from local_proxy.mounts.reasons import why_not

USER = 1000


@pytest.fixture
def copies(tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    (tmp_path / "file").write_text("x")
    return folder, tmp_path / "file"


def test_missing_mount_points_are_made_in_the_nearest_folder_that_exists(copies):
    folder, file = copies
    wanted = {
        "/var/run/hairpin-x/token": folder,
        "/etc/hairpin-x": folder,
        "/etc/hairpin-y.conf": file,
        "/hairpin-z/a": folder,
    }
    run = os.path.realpath("/var/run")  # a link on most machines
    assert plan(wanted, [], user=0) == Plan(
        covered=("/var/run", "/etc", "/") if run == "/var/run" else ("/etc", run, "/"),
        points=(
            ("/etc/hairpin-x", True),
            ("/etc/hairpin-y.conf", False),
            ("/hairpin-z/a", True),
            (f"{run}/hairpin-x/token", True),
        ),
        copies=(
            (str(folder), "/etc/hairpin-x"),
            (str(file), "/etc/hairpin-y.conf"),
            (str(folder), "/hairpin-z/a"),
            (str(folder), f"{run}/hairpin-x/token"),
        ),
    )


def test_what_is_in_another_copy_comes_with_it_and_what_exists_is_covered_as_it_is(copies, tmp_path):
    folder, _ = copies
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    link = str(tmp_path / "link")
    made = plan({link: folder, f"{link}/in": folder}, [], user=USER)
    assert made == Plan(copies=((str(folder), str(tmp_path / "there")),))


def refusal(path, copy, *needed, user=USER):
    made = plan({path: copy}, needed, user=user)
    assert made.copies == made.points == made.covered == ()
    return made.refused[path]


@pytest.mark.parametrize("path", ["/", "/etc", "/usr/bin", "/var/run", "/tmp", "/usr/../etc/"])
def test_what_programs_need_is_not_hidden(copies, path):
    assert refusal(path, copies[0]) == "it would hide what programs need on this machine"


@pytest.mark.parametrize("path", ["/proc/x", "/sys/x/y", "/dev/shm"])
def test_nothing_is_mounted_in_the_kernels_own(copies, path):
    assert refusal(path, copies[0]) == "it is the kernel's on this machine"


def test_what_the_command_needs_is_not_hidden(copies, tmp_path):
    work = tmp_path / "work" / "checkout"
    work.mkdir(parents=True)
    assert refusal(str(work.parent), copies[0], work) == f"it would hide {work}, which the command needs"
    assert refusal(str(work), copies[0], work) == f"it would hide {work}, which the command needs"


def test_a_mount_point_that_would_be_left_behind_is_not_made(copies, tmp_path):
    missing = tmp_path / "missing" / "deep"
    assert refusal(str(missing), copies[0]).startswith(f"it is missing in {tmp_path}, which programs write to")
    assert not missing.parent.exists()
    assert refusal("/tmp/hairpin-missing", copies[0], user=0).startswith(
        "it is missing in /tmp, which programs write to"
    )


def test_files_and_folders_do_not_replace_each_other(copies, tmp_path):
    folder, file = copies
    assert refusal(str(file), folder) == "it is a file on this machine, and a folder in the pod"
    assert refusal(str(tmp_path), file) == "it is a folder on this machine, and a file in the pod"
    assert refusal(str(file / "below"), folder) == f"{file} is no folder on this machine"


NAMES = st.sampled_from(["etc", "hairpin-a", "hairpin-b", "run", "usr", "srv"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(PATHS, max_size=6))
def test_each_path_is_mounted_refused_or_comes_with_another(paths):
    copy = Path("/etc")  # any folder
    made = plan(dict.fromkeys(paths, copy), [], user=0)
    places = [Path(place) for _, place in made.copies]
    for path in paths - made.refused.keys():
        real = Path(path).resolve()
        assert any(real == place or place in real.parents for place in places) or any(
            Path(other) in Path(path).parents for other in made.refused
        )
    for point, _ in made.points:
        assert any(Path(folder) in Path(point).parents for folder in made.covered)
        assert not os.path.lexists(point)


PERMISSION = [
    (
        {"kernel/unprivileged_userns_clone": "0"},
        "user namespaces are root's alone (kernel.unprivileged_userns_clone=0)",
    ),
    ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor lets ordinary programs use no user namespaces"),
    ({}, "a container or sandbox around this shell forbids it (unshare: Operation not permitted)"),
]


@pytest.mark.parametrize(("settings", "text"), PERMISSION)
def test_why_a_system_refuses(settings, text):
    read = {f"/proc/sys/{name}": value for name, value in settings.items()}
    assert text in why_not(errno.EPERM, "unshare", lambda path: read.get(path, ""))


def test_why_there_are_no_more_namespaces():
    off = {"/proc/sys/user/max_user_namespaces": "0"}
    assert "(user.max_user_namespaces=0)" in why_not(errno.ENOSPC, "unshare", lambda path: off.get(path, ""))
    assert "nested too deep" in why_not(errno.EUSERS, "unshare", lambda _: "96365")
    assert "without user namespaces" in why_not(errno.EINVAL, "unshare(2)", lambda _: "")
    assert why_not(errno.EIO, "mounting a copy (/etc/x)") == "mounting a copy (/etc/x): Input/output error"
