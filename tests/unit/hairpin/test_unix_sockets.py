"""Where Unix sockets are put when a temporary folder's path is long."""

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from hairpin.errors import InvalidFieldError
from hairpin.unix_sockets import MAX_SOCKET_PATH, socket_directory, temporary_directory


@pytest.fixture
def long(tmp_path, monkeypatch):
    """The usual place for temporary folders, with too long a path."""
    place = tmp_path / ("d" * MAX_SOCKET_PATH)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def bound(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_the_usual_place_is_taken_where_it_is_short_enough(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert str(temporary_directory("hairpin-", 32).parent) == short


def test_a_long_one_is_left_for_one_that_takes_sockets(long):
    with tempfile.TemporaryDirectory(dir="/tmp") as run:
        made = temporary_directory("hairpin-", 32, {"XDG_RUNTIME_DIR": run})
        assert str(made.parent) == run
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        bound(made / ("s" * 32))
    made = temporary_directory("hairpin-", 32, {"XDG_RUNTIME_DIR": str(long)})
    assert str(made.parent) == "/tmp"
    made.rmdir()


def test_where_none_will_do_the_variable_is_named(long):
    with pytest.raises(InvalidFieldError, match=r"TMPDIR: .* is no place for unix sockets .*; set TMPDIR to a shorter"):
        temporary_directory("hairpin-", MAX_SOCKET_PATH, {})


def test_sockets_of_a_long_directory_are_elsewhere_for_as_long_as_needed(long):
    with socket_directory(long, "a.sock", "bc.sock") as elsewhere:
        assert elsewhere != long
        bound(elsewhere / "bc.sock")
    assert not elsewhere.exists()


def test_sockets_of_a_short_directory_are_there():
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket_directory(Path(short), "a") as at:
        assert str(at) == short
