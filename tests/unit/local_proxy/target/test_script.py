import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.errors import HairpinError
from hairpin.kubernetes.errors import ApiForbiddenError
from hairpin.kubernetes.exec import NotStartedError, Reading, exit_code
from local_proxy.target import script


def run(mark, *folders, env):
    done = subprocess.run(script.command(mark, folders), env=env, capture_output=True, check=False)
    return done.returncode, done.stdout


def test_the_shell_tells_environment_and_files(tmp_path):
    volume = tmp_path / "vol ume"
    data = volume / "..2026"
    (data / "deep").mkdir(parents=True)
    (data / "token").write_bytes(b"\x00\xff\n\n")
    (data / "deep" / "a'b").write_bytes(b"")
    (volume / "..data").symlink_to("..2026")
    (volume / "token").symlink_to("..data/token")
    (volume / "deep").symlink_to("..data/deep")
    (volume / ".hidden").write_text("h")
    single = tmp_path / "one"
    single.write_text("1")
    mark = script.new_mark()
    folders = [str(volume), str(single), str(tmp_path / "missing")]
    env = {"PATH": os.environ["PATH"], "A": "1\n2", "B": "\udcff", "EMPTY": ""}
    code, output = run(mark, *folders, env=env)
    assert code == 0
    told = script.parse(output, mark, folders, ["A"])
    assert told.variables == {
        **env,
        **{k: v for k, v in told.variables.items() if k in ("PWD", "_", "SHLVL", "OLDPWD")},
    }
    assert told.files == {
        f"{volume}/token": b"\x00\xff\n\n",
        f"{volume}/deep/a'b": b"",
        f"{volume}/.hidden": b"h",
        str(single): b"1",
    }


def test_an_image_without_cat_is_told(tmp_path):
    (tmp_path / "sh").symlink_to(shutil.which("sh"))
    mark = script.new_mark()
    done = subprocess.run(
        [shutil.which("sh"), *script.command(mark, [])[1:]],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert script.lacks_cat(done.returncode)


MARK = "\n-- mark\n"


def output(*pieces):
    return b"".join(piece + MARK.encode() for piece in pieces)


def test_pid_1_is_believed_if_it_is_the_containers():
    own = b"KUBERNETES_SERVICE_HOST=1\0A=1\0"
    more = b"KUBERNETES_SERVICE_HOST=1\0A=1\0EXPORTED=x\0"
    assert "EXPORTED" in script.parse(output(own, more, b"end"), MARK, [], ["A"]).variables
    assert "EXPORTED" not in script.parse(output(own, more, b"end"), MARK, [], ["B"]).variables
    assert script.parse(output(own, b"PATH=/\0", b"end"), MARK, []).variables["A"] == "1"
    assert script.parse(output(own, b"", b"end"), MARK, []).variables["A"] == "1"


@pytest.mark.parametrize("length", range(1, 40))
def test_what_is_cut_off_is_no_answer(length):
    whole = output(b"A=1\0", b"", b"/a/b", b"content", b"end")
    with pytest.raises(HairpinError, match="cut off"):
        script.parse(whole[:-length], MARK, ["/a"])


@pytest.mark.parametrize("path", [b"/etc/passwd", b"/a/../etc/passwd", b"/ab", b"/a/\0"])
def test_a_file_that_was_not_asked_for_is_not_taken(path):
    assert script.parse(output(b"A=1\0", b"", path, b"x", b"end"), MARK, ["/a"]).files == {}


@given(st.dictionaries(st.text("abcd", min_size=1), st.binary(), max_size=5))
def test_any_content_arrives(files):
    pieces = [piece for name, data in files.items() for piece in (f"/a/{name}".encode(), data)]
    assert script.parse(output(b"", b"", *pieces, b"end"), MARK, ["/a"]).files == {
        f"/a/{k}": v for k, v in files.items()
    }


def test_an_execs_messages():
    reading = Reading(10, "shop/x")
    assert not reading.take(b"\x01abc")
    assert not reading.take(b"\x02err")
    assert not reading.take(b"\x01\x00\xff")
    assert reading.take(b'\x03{"status":"Success"}')
    assert (reading.result().code, reading.result().output, reading.result().error) == (0, b"abc\x00\xff", b"err")
    with pytest.raises(HairpinError, match="10 bytes"):
        reading.take(b"\x01" + 8 * b"x")


def test_how_an_exec_ends():
    cause = {"reason": "ExitCode", "message": "41"}
    assert exit_code({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}) == 41
    reading = Reading(10, "shop/x")
    with pytest.raises(HairpinError, match="broke off"):
        reading.result()
    reading.take(b'\x03{"status":"Failure","reason":"InternalError","message":"no sh"}')
    with pytest.raises(NotStartedError, match="no sh"):
        reading.result()
    assert not issubclass(NotStartedError, ApiForbiddenError)
