from __future__ import annotations

import io
import itertools
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from hairpin.cli import _entry_points, _parser
from hairpin.demo.command import shop_folder
from hairpin.demo.story import Stage, StoryError, _part, _place, _places, guide
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.state import MeshFolder
from hairpin.yaml_file import load_yaml

ANSWER = {
    "service": "frontend",
    "where": "cluster",
    "downstream": {
        "service": "checkout",
        "where": "a laptop",
        "downstream": {"service": "inventory", "where": "cluster"},
    },
}


@pytest.fixture
def mesh():
    return mesh_from_document(load_yaml(shop_folder() / "mesh.yaml"), itertools.count(20000))


def typed(text):
    """The command lines that the guide has a newcomer type."""
    return [shlex.split(line) for line in re.findall(r"^ {7}((?:curl|\S*hairpin) .*)$", text, re.MULTILINE)]


def test_what_the_guide_has_one_type_is_right_for_this_mesh(mesh, tmp_path):
    commands = typed(guide(mesh, MeshFolder(tmp_path)))
    assert [Path(command[0]).name for command in commands] == ["curl", "hairpin", "curl", "curl"]
    assert all(
        command[-1] == f"http://{mesh.entry.address}/?mug=2&shirt=2" for command in commands if command[0] == "curl"
    )
    assert commands[2][1:3] == ["-H", "x-env: alice"]
    run = commands[1]
    assert run[1] == "run"
    assert Path(run[-1]).is_file()
    arguments = _parser("run", _entry_points()["run"].load()).parse_args(run[2 : run.index("--")])
    assert (arguments.env, arguments.target, arguments.config) == ("alice", "checkout", None)
    assert mesh.workload(arguments.target)


def test_where_there_are_several_developers_the_guide_names_the_first_ones_file(mesh, tmp_path):
    folder = MeshFolder(tmp_path)
    run = typed(guide(replace(mesh, developers=("alice", "bob")), folder))[1]
    assert run[2:4] == ["--config", str(folder.developer("alice"))]


def test_the_line_that_the_story_edits_is_in_the_example():
    assert (shop_folder() / "checkout.py").read_text().count("discount = 0.10") == 1


def test_a_step_that_does_not_hold_ends_the_story_and_is_shown(mesh, tmp_path):
    out = io.StringIO()
    stage = Stage(out, mesh, MeshFolder(tmp_path), tmp_path)
    stage.check(True, "the sum is", 4)
    with pytest.raises(StoryError, match=r"the story did not hold: the sum is: 5"):
        stage.check(False, "the sum is", 5)
    assert out.getvalue() == "    ok: the sum is: 4\n    NOT SO: the sum is: 5\n"
    assert StoryError.exit_code == 1


def test_the_parts_of_an_answer_are_found_by_service():
    assert _places(ANSWER) == ["cluster", "a laptop", "cluster"]
    assert _place(ANSWER, "checkout") == "a laptop"
    assert _part(ANSWER, "inventory")["where"] == "cluster"
    with pytest.raises(StoryError, match="no answer of basket"):
        _part(ANSWER, "basket")
