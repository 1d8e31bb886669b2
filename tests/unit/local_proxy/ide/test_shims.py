"""Shims, written and executed."""

import os
import subprocess
import sys

import pytest

from hairpin.errors import NotFoundError
from local_proxy.ide import shim
from local_proxy.ide.languages import Language
from local_proxy.ide.shims import shim_text, write_shims

SAY = """#!/bin/sh
printf '%s\\n' "REAL" "$0" "$@"
cat
[ -e /dev/fd/7 ] && echo to seven >&7
exit 9
"""
ALL = (Language.PYTHON, Language.NODE, Language.GO, Language.JAVA)


@pytest.fixture
def real(tmp_path):
    """The real programs, and a JDK."""
    folder = tmp_path / "real"
    for name in ("bin/node", "bin/go", "bin/dlv", "bin/python3", "jdk/bin/java", "jdk/bin/javac"):
        program = folder / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(SAY)
        program.chmod(0o755)
    (folder / "jdk/release").write_text('JAVA_VERSION="17"\n')
    (folder / "jdk/lib").mkdir()
    (folder / "jdk/lib/modules").write_text("modules")
    return folder


@pytest.fixture
def environ(real):
    return {"PATH": f"{real / 'bin'}:/usr/bin:/bin", "JAVA_HOME": str(real / "jdk"), "HOME": str(real)}


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "my shop"
    folder.mkdir()
    (folder / "hairpin.yaml").write_text("target: checkout\n")
    return folder


def call(program, *arguments, cwd, environ, **more):
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=20, **more
    )


def test_shims_are_written_once_and_again_unchanged(shop, environ, real):
    written = write_shims(shop, ALL, service=None, environ=environ)
    names = [str(path.relative_to(shop)) for path in written]
    assert names == [
        f".hairpin/{name}" for name in ("bin/python", "bin/python3", "bin/node", "bin/go", "bin/dlv", "jdk")
    ]
    assert (shop / ".hairpin/.gitignore").read_text() == "*\n"
    before = {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in shop.rglob("*")}
    assert write_shims(shop, ALL, service=None, environ=environ) == written
    assert {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in shop.rglob("*")} == before
    # The shims are in PATH and JAVA_HOME where the IDE's terminal has them so: they never stand for themselves.
    own = environ | {"PATH": f"{shop / '.hairpin/bin'}:{environ['PATH']}", "JAVA_HOME": str(shop / ".hairpin/jdk")}
    java = real / "bin/java"
    java.symlink_to(real / "jdk/bin/java")
    write_shims(shop, ALL, service=None, environ=own)
    assert {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in shop.rglob("*")} == before


def test_the_projects_own_python_is_taken_before_paths(shop, environ):
    python = shop / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    shims = write_shims(shop, [Language.PYTHON], service=None, environ=environ)
    found = call(shims[0], "-c", "import sys; print(sys.executable)", cwd=shop, environ=environ)
    assert found.stdout.strip() == str(python), found.stderr


def test_a_jdk_is_the_real_one_but_for_java(shop, environ, real):
    write_shims(shop, [Language.JAVA], service=None, environ=environ)
    jdk = shop / ".hairpin/jdk"
    assert sorted(path.name for path in jdk.iterdir()) == ["bin", "lib", "release"]
    assert (jdk / "bin/javac").readlink() == real / "jdk/bin/javac"
    assert (jdk / "lib/modules").read_text() == "modules"
    assert not (jdk / "bin/java").is_symlink()
    (real / "jdk/lib").rename(real / "jdk/conf")
    write_shims(shop, [Language.JAVA], service=None, environ=environ)
    assert sorted(path.name for path in jdk.iterdir()) == ["bin", "conf", "release"]
    asked = call(jdk / "bin/java", "-version", cwd=shop, environ=environ, input="")
    assert asked.stdout.splitlines() == ["REAL", str(real / "jdk/bin/java"), "-version"]


@pytest.mark.parametrize(
    ("language", "message"),
    [
        (Language.NODE, r"^node: not found in PATH; install Node"),
        (Language.GO, r"^dlv: not found in PATH; go install "),
        (Language.JAVA, r"^java: not found in PATH; .*JAVA_HOME$"),
        (Language.PYTHON, r"^python3: not found in PATH; "),
    ],
)
def test_a_program_that_is_missing_is_named_and_nothing_is_written(shop, tmp_path, language, message):
    (tmp_path / "go").write_text(SAY)
    (tmp_path / "go").chmod(0o755)
    with pytest.raises(NotFoundError, match=message):
        write_shims(shop, [language], service=None, environ={"PATH": str(tmp_path), "HOME": str(tmp_path)})
    assert not (shop / ".hairpin").exists()


def test_what_is_passed_on_is_the_real_program(shop, environ, real):
    """Arguments, input, exit code and descriptors are its own."""
    (node,) = write_shims(shop, [Language.NODE], service=None, environ=environ)
    arguments = ["--version", "a b", "$HOME", "", "*", "'\"\n"]
    read, write = os.pipe()
    os.set_inheritable(write, True)
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys; os.dup2({write}, 7); os.execv(sys.argv[1], sys.argv[1:])", node, *arguments],
        cwd=shop, env=environ, input=b"typed", capture_output=True, pass_fds=(write,), check=False,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as seven:
        assert seven.read() == "to seven\n"
    assert done.stdout.decode() == "\n".join(["REAL", str(real / "bin/node"), *arguments, "typed"])
    assert (done.returncode, done.stderr) == (9, b"")


def test_a_program_is_run_by_hairpin_with_the_file_that_is_nearest(shop, tmp_path):
    (inner := shop / "services/checkout").mkdir(parents=True)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    for here, file in ((shop, shop), (inner, shop), (outside, shop)):
        assert shim.project_file(str(here), str(shop)) == str(file / "hairpin.yaml")
    (inner / "hairpin.yaml").write_text("")
    assert shim.project_file(str(inner), str(shop)) == str(inner / "hairpin.yaml")
    assert shim.project_file(str(outside), str(outside)) == ""
    assert shim.hairpin_command("py", "f", ["node", "--", "x"]) == [
        "py", "-E", "-P", "-m", "hairpin", "run", "--file", "f", "--", "node", "--", "x",
    ]  # fmt: skip
    assert shim.settled({"A": "1"}, "checkout") == {"A": "1", "HAIRPIN_SERVICE": "checkout"}
    assert shim.settled({"HAIRPIN_SERVICE": "mine"}, "checkout") == {"HAIRPIN_SERVICE": "mine"}
    assert shim.settled({"A": "1"}, "") == {"A": "1"}


def test_a_wrapped_call_is_hairpin_run_itself(shop, environ, real):
    """The real hairpin, which can't go far: its file has no command and names a mesh that is not there."""
    (shop / "hairpin.yaml").write_text("services: {checkout: {target: a, env: b, config: nowhere.yaml}, other: {}}\n")
    node = write_shims(shop, [Language.NODE], service="checkout", environ=environ)[0]
    refused = call(node, "server.js", cwd=shop, environ={**os.environ, "PYTHONPATH": str(shop)})
    assert refused.returncode not in (0, 9)
    assert "nowhere.yaml" in refused.stderr, refused.stderr
    unknown = call(node, "server.js", cwd=shop, environ={**os.environ, "HAIRPIN_SERVICE": "chekout"})
    assert "did you mean checkout?" in unknown.stderr, unknown.stderr


@pytest.mark.parametrize("variable", [{"HAIRPIN_SESSION": "checkout-1"}, {"HAIRPIN_SHIM": "pass"}])
def test_inside_a_session_and_where_the_user_says_so_nothing_is_wrapped(shop, environ, variable):
    (node,) = write_shims(shop, [Language.NODE], service=None, environ=environ)
    assert call(node, "server.js", cwd=shop, environ=environ | variable, input="").returncode == 9


def test_what_the_user_says_is_wrapped_is(shop, environ):
    (node,) = write_shims(shop, [Language.NODE], service=None, environ=environ)
    refused = call(node, "--test", cwd=shop, environ={**os.environ, "HAIRPIN_SHIM": "run"})
    assert "names nothing whose requests" in refused.stderr or "--env" in refused.stderr, refused.stderr


def test_without_a_file_the_program_runs_and_that_is_said(shop, environ):
    (shop / "hairpin.yaml").unlink()
    (node,) = write_shims(shop, [Language.NODE], service=None, environ=environ)
    done = call(node, "server.js", cwd=shop, environ=environ, input="")
    assert (done.returncode, done.stderr) == (
        9, "hairpin there is no hairpin.yaml here or above, so node runs without the mesh\n"
    )  # fmt: skip


def test_without_hairpin_the_program_runs_and_that_is_said(shop, environ, real):
    path = shop / "node"
    path.write_text(shim_text("node", real / "bin/node", shop, None, python="/nowhere/my python"))
    path.chmod(0o755)
    done = call(path, "server.js", "a b", cwd=shop, environ=environ, input="")
    assert done.stdout.splitlines() == ["REAL", str(real / "bin/node"), "server.js", "a b"]
    assert done.returncode == 9
    assert "hairpin is gone (/nowhere/my python), so node runs without the mesh" in done.stderr


def test_a_real_program_that_has_gone_is_named(shop, environ, real):
    (node,) = write_shims(shop, [Language.NODE], service=None, environ=environ)
    (real / "bin/node").unlink()
    done = call(node, "--version", cwd=shop, environ=environ)
    assert done.returncode == 127
    assert f"{real / 'bin/node'} can't be run: No such file or directory; write the shims anew" in done.stderr


def test_a_shim_imports_next_to_nothing():
    """An IDE asks an interpreter for its version many times."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-I", "-S", shim.__file__, "python", "/bin/true", "/", "", "-V"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "local_proxy.ide.wrapping" in imported
    assert not {"re", "typing", "signal", "pathlib", "hairpin"} & imported, imported


def test_shell_and_python_agree_on_every_character(tmp_path, environ):
    folder = tmp_path / "a 'folder' with \"$HOME\" `and` \\ more"
    (folder / "bin").mkdir(parents=True)
    real = folder / "bin/node"
    real.write_text(SAY)
    real.chmod(0o755)
    shop = folder / "shop"
    shop.mkdir()
    (node,) = write_shims(
        shop, [Language.NODE], service="it's", environ=environ | {"PATH": f"{real.parent}:/usr/bin:/bin"}
    )
    done = call(node, "--version", cwd=shop, environ=environ, input="")
    assert done.stdout.splitlines() == ["REAL", str(real), "--version"], done.stderr
