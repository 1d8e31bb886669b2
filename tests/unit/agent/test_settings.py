from __future__ import annotations

import copy
import textwrap
from pathlib import Path
from typing import Any

import pytest

import agent.settings
from agent.settings import read_settings, settings_of
from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.mesh import SocketAddress

WHOLE: dict[str, Any] = {
    "name": "agent-0",
    "namespace": "shop",
    "directory": "run",
    "controlPlane": {"api": "https://127.0.0.1:9100", "xds": "127.0.0.1:9101", "authority": "ca", "tokenFile": "t"},
    "listeners": {kind: f"127.0.0.1:{9200 + n}" for n, kind in enumerate(("steer", "tunnel", "egress", "ready"))},
    "mesh": {"outbound": "127.0.0.1:9205", "services": ["inventory"]},
}


def test_the_documented_example_is_valid(tmp_path):
    example = agent.settings.__doc__.partition("\n\n")[2]
    path = tmp_path / "agent.yaml"
    path.write_text(textwrap.dedent(example))
    settings = read_settings(path)
    assert settings.tunnel == SocketAddress("0.0.0.0", 9202)
    assert settings.forbidden == ("10.0.0.0/8",)


def test_services_are_known_short_and_in_full():
    assert settings_of(WHOLE).mesh_domains == (
        "inventory",
        "inventory.shop",
        "inventory.shop.svc",
        "*.shop.svc.cluster.local",
    )
    alone = {name: value for name, value in WHOLE.items() if name != "mesh"}
    assert settings_of(alone).mesh_domains == ()


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("name", None, "name"),
        ("directory", 3, "directory"),
        ("controlPlane.api", "http://127.0.0.1", "controlPlane.api"),
        ("controlPlane.xds", "localhost:1", "controlPlane.xds"),
        ("listeners.steer", "127.0.0.1:0", "listeners.steer"),
        ("listeners.ready", "127.0.0.1", "listeners.ready"),
        ("mesh.outbound", "x", "mesh.outbound"),
        ("egress", {"forbidden": ["10.0.0.1/8"]}, "egress.forbidden[0]"),
        ("requestLog", {"perSecond": 0}, "requestLog.perSecond"),
        ("drainSeconds", True, "drainSeconds"),
        ("drainSecond", 1, "drainSecond"),
        ("listeners.admin", 1, "listeners.admin"),
    ],
)
def test_an_error_names_its_field(path, value, field):
    document = copy.deepcopy(WHOLE)
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(InvalidFieldError) as caught:
        settings_of(document)
    assert caught.value.field == field


def test_a_file_that_is_missing_or_no_yaml_is_said_so(tmp_path):
    with pytest.raises(NotFoundError, match="--config"):
        read_settings(tmp_path / "none")
    Path(tmp_path / "bad").write_text("a: [")
    with pytest.raises(InvalidFieldError, match="no YAML"):
        read_settings(tmp_path / "bad")
