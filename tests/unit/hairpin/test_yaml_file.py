"""YAML files that users write."""

from __future__ import annotations

import pytest

from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.yaml_file import LONGEST, load_yaml


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mesh.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: [1, -2, 1.5, x]", {"a": [1, -2, 1.5, "x"]}),
        ("a: true\nb: null\nc: ~\nd:", {"a": True, "b": None, "c": None, "d": None}),
        ("country: no\nswitch: on\nyes: y", {"country": "no", "switch": "on", "yes": "y"}),
        (
            "at: 12:30\nday: 2026-01-31\nmode: 010\nhex: 0x1f",
            {"at": "12:30", "day": "2026-01-31", "mode": "010", "hex": "0x1f"},
        ),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)
def test_what_is_read(file, text, value):
    file.write_text(text)
    assert load_yaml(file) == value


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ":3:2", "expected ',' or ']'"),
        (b"a: 1\nb: 2\na: 3\n", ":3:1", "the key a for the second time"),
        (b"a: !!python/object:os.system {}\n", ":1:4", "could not determine a constructor"),
        (b"a: 1\n---\nb: 2\n", ":2:1", "but found another document"),
        (b"a: \xff\n", "", "invalid start byte"),
        (b"a: \x00\n", "", "special characters are not allowed"),
        (b"#" * (LONGEST + 1), "", "1048577 bytes"),
    ],
)
def test_what_is_wrong_is_shown_with_its_place(file, content, place, problem):
    file.write_bytes(content)
    with pytest.raises(InvalidFieldError) as error:
        load_yaml(file)
    assert error.value.field == f"{file}{place}"
    assert problem in str(error.value.value)


def test_a_file_that_is_not_there(file):
    with pytest.raises(NotFoundError, match="No such file"):
        load_yaml(file)
