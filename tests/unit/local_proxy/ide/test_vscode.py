"""`hairpin ide vscode`: what it writes, and what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hairpin.cli import main
from local_proxy.ide.jsonc import parse
from local_proxy.ide.languages import Language
from local_proxy.ide.launches import Launch
from local_proxy.ide.programs import UNKNOWN, Kind, Program
from local_proxy.ide.vscode import launch_json, settings_json

ROOT = "${workspaceFolder}"
PYTHON = Launch(
    "checkout", "checkout", Language.PYTHON, "services/checkout", Program(Kind.FILE, "checkout.py", ("-v",))
)
USERS = """{
  // Use IntelliSense.
  "version": "0.2.0",
  "configurations": [
    { "name": "mine", "type": "debugpy", "args": ["a", /* b */ ] }, // keep
  ],
  "compounds": [],
}
"""


def configurations(text: str) -> list[dict[str, Any]]:
    return list(parse(text).value["configurations"])


def test_a_python_configuration_starts_the_shim() -> None:
    (written,) = configurations(launch_json(None, [PYTHON]))
    assert written == {
        "name": "hairpin: checkout (python)",
        "type": "debugpy",
        "request": "launch",
        "python": f"{ROOT}/.hairpin/bin/python",
        "program": f"{ROOT}/services/checkout/checkout.py",
        "args": ["-v"],
        "cwd": f"{ROOT}/services/checkout",
        "console": "integratedTerminal",
        "env": {"HAIRPIN_SERVICE": "checkout"},
    }


@pytest.mark.parametrize(
    ("language", "program", "expected"),
    [
        (Language.PYTHON, Program(Kind.MODULE, "uvicorn", ("app:app",)), {"module": "uvicorn", "args": ["app:app"]}),
        (Language.NODE, Program(Kind.FILE, "s.js", (), ("-r", "x")),
         {"type": "node", "runtimeExecutable": f"{ROOT}/.hairpin/bin/node", "program": f"{ROOT}/s.js", "runtimeArgs": ["-r", "x"]}),
        (Language.GO, Program(Kind.PACKAGE, "./cmd"), {"type": "go", "mode": "debug", "program": f"{ROOT}/cmd"}),
        (Language.JAVA, Program(Kind.CLASS, "shop.Main"),
         {"type": "java", "javaExec": f"{ROOT}/.hairpin/jdk/bin/java", "mainClass": "shop.Main"}),
        (Language.JAVA, UNKNOWN, {"mainClass": "${file}"}),
        (Language.PYTHON, UNKNOWN, {"program": "${file}"}),
    ],
)  # fmt: skip
def test_each_language_has_its_own_way(language: Language, program: Program, expected: dict[str, Any]) -> None:
    (written,) = configurations(launch_json(None, [Launch(None, "shop", language, ".", program)]))
    assert written.items() >= expected.items()
    assert "env" not in written


def test_what_is_the_users_keeps_every_byte() -> None:
    text = launch_json(USERS, [PYTHON])
    head, keep, rest = USERS.partition("// keep")
    assert text.startswith(head + keep) and text.endswith(rest)
    assert [item["name"] for item in configurations(text)] == ["mine", "hairpin: checkout (python)"]
    assert launch_json(text, [PYTHON]) == text


def test_what_a_user_adds_to_ours_stays_and_what_is_ours_is_renewed() -> None:
    text = launch_json(USERS, [PYTHON]).replace(
        '"console": "integratedTerminal"', '"console": "internalConsole", // quiet\n      "justMyCode": false'
    )
    text = text.replace('"HAIRPIN_SERVICE": "checkout"', '"HAIRPIN_SERVICE": "checkout", "DEBUG": "1"')
    module = Launch("checkout", "checkout", Language.PYTHON, ".", Program(Kind.MODULE, "shop", ()))
    edited = launch_json(text, [module])
    ours = configurations(edited)[1]
    assert "// quiet" in edited
    assert ours.items() >= {"module": "shop", "args": [], "justMyCode": False, "console": "internalConsole"}.items()
    assert ours["env"] == {"HAIRPIN_SERVICE": "checkout", "DEBUG": "1"}
    assert "program" not in ours
    assert launch_json(edited, [module]) == edited


def test_a_program_that_the_user_named_stays() -> None:
    unknown = Launch(None, "shop", Language.PYTHON, ".", UNKNOWN)
    text = launch_json(None, [unknown]).replace("${file}", "app.py")
    assert launch_json(text, [unknown]) == text


def test_delve_is_named_in_the_settings_since_launch_json_can_not() -> None:
    go = Launch(None, "shop", Language.GO, ".", Program(Kind.PACKAGE, "."))
    text = settings_json('{ // mine\n  "go.alternateTools": {"gopls": "x"},\n}', [go])
    assert text is not None and "// mine" in text
    assert parse(text).value == {"go.alternateTools": {"gopls": "x", "dlv": f"{ROOT}/.hairpin/bin/dlv"}}
    assert settings_json(text, [go]) == text
    assert settings_json(None, [PYTHON]) is None


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hairpin.yaml").write_text("target: checkout\nenv: alice\ncommand: python checkout.py\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "local_proxy.ide.shims", SimpleNamespace(write_shims=fake_shims))
    return tmp_path


def fake_shims(folder: Path, languages: list[Language], *, service: str | None) -> list[Path]:
    """What needs no interpreter of the machine."""
    assert service is None
    shims = [folder / ".hairpin" / "bin" / language for language in languages]
    for shim in shims:
        shim.parent.mkdir(parents=True, exist_ok=True)
        shim.touch()
    return shims


def test_the_command_writes_shims_and_configuration_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ide", "vscode"]) == 0
    launch = project / ".vscode" / "launch.json"
    first = launch.read_bytes()
    (ours,) = json.loads(first)["configurations"]
    assert (project / ours["python"].replace(ROOT, str(project))).is_file()
    assert not (project / ".vscode" / "settings.json").exists()
    assert f"hairpin: {project.name} (python)" in capsys.readouterr().out
    assert main(["ide", "vscode"]) == 0
    assert launch.read_bytes() == first
    assert "as it was" in capsys.readouterr().out


def test_a_file_that_can_not_be_read_is_left_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".vscode").mkdir()
    launch = project / ".vscode" / "launch.json"
    launch.write_bytes(b"{\r\n  oops\r\n}")
    assert main(["ide", "vscode"]) == 2
    assert ".vscode/launch.json:2:3 a name in quotes is expected" in capsys.readouterr().err
    assert launch.read_bytes() == b"{\r\n  oops\r\n}"
    assert not (project / ".hairpin").exists()


def test_another_delve_is_not_overwritten(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".vscode").mkdir()
    (project / ".vscode" / "settings.json").write_text('{"go.alternateTools": {"dlv": "/opt/dlv"}}')
    assert main(["ide", "vscode", "--language", "go"]) == 4
    assert '"/opt/dlv"' in capsys.readouterr().err
    assert not (project / ".vscode" / "launch.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--language", "pyton"], 2, "did you mean python?"),
        (["shop"], 3, "is no service of hairpin.yaml"),
        (["--file", "none.yaml"], 3, "none.yaml"),
    ],
)
def test_a_mistake_is_told(
    project: Path, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ide", "vscode", *words]) == code
    assert told in capsys.readouterr().err


def test_without_a_file_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ide", "vscode"]) == 3
    assert "no hairpin.yaml here or above" in capsys.readouterr().err
