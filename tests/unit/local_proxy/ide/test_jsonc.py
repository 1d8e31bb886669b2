"""JSON with comments, edited in place: what is not ours keeps every byte."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_proxy.ide.jsonc import JsoncError, parse
from local_proxy.ide.jsonc_edit import append, find, remove, set_value

scalars = st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=6)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
blanks = st.lists(
    st.sampled_from([" ", "\n", "\r\n", "\t", "// a } comment\n", "/* [ */", "/* two\nlines */", "// ü\r\n", ""]),
    max_size=3,
).map("".join)


@st.composite
def written(draw: Any, value: Any) -> str:
    """A value as a user might write it."""

    def blank() -> str:
        return draw(blanks)

    def comma(last: bool) -> str:
        return ("," if not last or draw(st.booleans()) else "") + blank()

    if isinstance(value, list):
        parts = [
            blank() + draw(written(item)) + blank() + comma(index + 1 == len(value)) for index, item in enumerate(value)
        ]
        return "[" + blank() + "".join(parts) + "]"
    if isinstance(value, dict):
        parts = [
            blank()
            + json.dumps(key)
            + blank()
            + ":"
            + blank()
            + draw(written(item))
            + blank()
            + comma(index + 1 == len(value))
            for index, (key, item) in enumerate(value.items())
        ]
        return "{" + blank() + "".join(parts) + "}"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


documents = values.flatmap(lambda value: st.tuples(st.just(value), written(value), blanks, blanks, st.booleans())).map(
    lambda parts: (parts[0], ("\ufeff" if parts[4] else "") + parts[2] + parts[1] + parts[3])
)


@settings(max_examples=40, deadline=None)
@given(documents)
def test_what_a_user_writes_is_read(document: tuple[Any, str]) -> None:
    value, text = document
    assert parse(text).value == value


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), values, max_size=3), values, st.data())
def test_an_append_inserts_and_changes_nothing_else(others: dict[str, Any], new: Any, data: st.DataObject) -> None:
    items = data.draw(st.lists(values, max_size=3))
    text = data.draw(blanks) + data.draw(written({**others, "configurations": items}))
    edited = append(text, ("configurations",), new)
    assert parse(edited).value == {**others, "configurations": [*items, new]}
    _assert_only_inserted(text, edited)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), values, max_size=3), st.text(max_size=4), values, st.data())
def test_a_set_changes_one_value(others: dict[str, Any], key: str, new: Any, data: st.DataObject) -> None:
    text = data.draw(written(others))
    edited = set_value(text, (key,), new)
    assert parse(edited).value == {**others, key: new}
    assert set_value(edited, (key,), new) == edited
    if key not in others:
        _assert_only_inserted(text, edited)
    else:
        place = find(parse(text), (key,))
        assert place is not None
        assert edited.startswith(text[: place.start]) and edited.endswith(text[place.end :])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=4), st.data())
def test_a_removal_keeps_the_rest_and_all_comments(members: dict[str, Any], data: st.DataObject) -> None:
    text = data.draw(written(members))
    key = data.draw(st.sampled_from(list(members)))
    edited = remove(text, (key,))
    assert parse(edited).value == {name: value for name, value in members.items() if name != key}
    assert remove(edited, (key,)) == edited


def _assert_only_inserted(before: str, after: str) -> None:
    """What is new is in one or two places: a comma, and the value."""
    head = 0
    while head < len(before) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < len(before) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    middle = before[head : len(before) - tail]
    assert middle in after[head : len(after) - tail], (before, after)


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ('{\n  "a": 1\n  "b": 2\n}', 3, 3, "a comma or }"),
        ('{"a": tru}', 1, 7, "not 'tru'"),
        ('{"a": "x\n}', 1, 7, "quotes"),
        ('{"a": 1', 1, 8, "the end"),
        ("{a: 1}", 1, 2, "a name in quotes"),
        ('\ufeff{"a" 1}', 1, 6, "a colon"),
        ("{} {}", 1, 4, "after the end"),
        ("/* x", 1, 1, "does not end"),
        ("", 1, 1, "the end"),
        ("[01]", 1, 2, "a value"),
        ('["\\x"]', 1, 3, "escape"),
        ("[" * 1000, 1, 202, "levels"),
        ("{\r\n\r\n,}", 3, 1, "a name"),
    ],
)
def test_an_error_has_its_place(text: str, line: int, column: int, problem: str) -> None:
    with pytest.raises(JsoncError, match=re.escape(problem)) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{\n\t"c": []\n}\n', '{\n\t"c": [\n\t\t{\n\t\t\t"a": 1\n\t\t}\n\t]\n}\n'),
        ('{\r\n  "c": [\r\n    1 // one\r\n  ]\r\n}', '{\r\n  "c": [\r\n    1, // one\r\n    {\r\n      "a": 1\r\n    }\r\n  ]\r\n}'),
        ('{\n  "c": [\n    1, // one\n    // none\n  ]\n}', '{\n  "c": [\n    1, // one\n    {\n      "a": 1\n    },\n    // none\n  ]\n}'),
    ],
    ids=["tabs", "crlf", "trailing comma"],
)  # fmt: skip
def test_new_text_looks_like_its_surroundings(before: str, after: str) -> None:
    assert append(before, ("c",), {"a": 1}) == after


def test_a_line_that_is_removed_leaves_no_empty_one() -> None:
    assert remove('{\n  "a": 1, // mine\n  "b": 2\n}', ("b",)) == '{\n  "a": 1 // mine\n}'
    assert remove('{\n  "a": 1,\n  "b": 2,\n}', ("a",)) == '{\n  "b": 2,\n}'


def test_what_must_be_a_list_and_is_none_is_told() -> None:
    with pytest.raises(JsoncError, match="line 1, column 7: c must be a list"):
        append('{"c": 1}', ("c",), 1)
