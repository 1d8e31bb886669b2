"""`hairpin ide intellij` and `explain`: what they write, and what they leave."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.cli import main
from hairpin.errors import ConflictError, HairpinError
from local_proxy.ide.intellij import RunConfiguration, run_configurations, run_xml
from local_proxy.ide.languages import Language
from local_proxy.ide.launches import Launch
from local_proxy.ide.programs import UNKNOWN, Kind, Program

ROOT = "$PROJECT_DIR$"
PYTHON = Launch(
    "checkout", "checkout", Language.PYTHON, "services/checkout", Program(Kind.FILE, "checkout.py", ("-v", "a b"))
)


def written(launch: Launch) -> list[tuple[RunConfiguration, str]]:
    return [(wanted, run_xml(None, wanted)) for wanted in run_configurations(launch)]


def options(text: str) -> dict[str, str]:
    configuration = ET.fromstring(text)[0]
    return {one.get("name", ""): one.get("value", "") for one in configuration.findall("option")}


def test_a_python_configuration_is_as_the_ide_itself_writes_it() -> None:
    ((wanted, text),) = written(PYTHON)
    assert wanted.file == "hairpin-checkout-python.run.xml"
    assert text == (
        '<component name="ProjectRunConfigurationManager">\n'
        '  <configuration default="false" name="hairpin: checkout (python)" folderName="hairpin" '
        'type="PythonConfigurationType" factoryName="Python">\n'
        f'    <option name="SDK_HOME" value="{ROOT}/.hairpin/bin/python" />\n'
        '    <option name="IS_MODULE_SDK" value="false" />\n'
        f'    <option name="WORKING_DIRECTORY" value="{ROOT}/services/checkout" />\n'
        f'    <option name="SCRIPT_NAME" value="{ROOT}/services/checkout/checkout.py" />\n'
        '    <option name="PARAMETERS" value="-v \'a b\'" />\n'
        '    <option name="MODULE_MODE" value="false" />\n'
        '    <option name="INTERPRETER_OPTIONS" value="" />\n'
        "    <envs>\n"
        '      <env name="HAIRPIN_SERVICE" value="checkout" />\n'
        "    </envs>\n"
        '    <option name="PARENT_ENVS" value="true" />\n'
        '    <option name="ADD_CONTENT_ROOTS" value="true" />\n'
        '    <option name="ADD_SOURCE_ROOTS" value="true" />\n'
        '    <option name="EMULATE_TERMINAL" value="true" />\n'
        '    <method v="2" />\n'
        "  </configuration>\n"
        "</component>\n"
    )


def test_java_gets_the_jdk_whose_java_is_the_shim() -> None:
    ((_, text),) = written(
        Launch(None, "shop", Language.JAVA, ".", Program(Kind.CLASS, "shop.Main", ("80",), ("-ea",)))
    )
    assert options(text).items() >= {
        "ALTERNATIVE_JRE_PATH": f"{ROOT}/.hairpin/jdk",
        "ALTERNATIVE_JRE_PATH_ENABLED": "true",
        "MAIN_CLASS_NAME": "shop.Main",
        "PROGRAM_PARAMETERS": "80",
        "VM_PARAMETERS": "-ea",
    }.items()  # fmt: skip
    assert "<envs" not in text
    assert '<option name="Make" enabled="true" />' in text


def test_node_is_told_by_attributes() -> None:
    ((_, text),) = written(
        Launch(None, "shop", Language.NODE, "web", Program(Kind.FILE, "./s.js", ("80",), ("-r", "x")))
    )
    attributes = ET.fromstring(text)[0].attrib
    assert attributes.items() >= {
        "type": "NodeJSConfigurationType",
        "path-to-node": f"{ROOT}/.hairpin/bin/node",
        "path-to-js-file": "s.js",
        "working-dir": f"{ROOT}/web",
        "application-parameters": "80",
        "node-parameters": "-r x",
    }.items()  # fmt: skip


def test_go_is_started_under_delve_and_attached_to() -> None:
    (start, script), (attach, remote) = written(
        Launch("cart", "cart", Language.GO, ".", Program(Kind.PACKAGE, "./cmd", ("-v",)))
    )
    assert options(script)["SCRIPT_TEXT"] == (
        "hairpin run cart -- dlv debug ./cmd --headless --listen=127.0.0.1:2345 --api-version=2 --accept-multiclient -- -v"
    )
    assert ET.fromstring(remote)[0].get("port") == "2345"
    assert start.file != attach.file


def test_a_second_run_changes_nothing_and_what_a_user_adds_stays() -> None:
    ((wanted, text),) = written(PYTHON)
    assert run_xml(text, wanted) == text
    users = text.replace(
        '    <method v="2" />',
        '    <!-- mine -->\n    <option name="REDIRECT_INPUT" value="true"/>\n    <method v="2" />',
    )
    users = users.replace("<envs>", '<envs>\n      <env name="DEBUG" value="1"/>').replace(
        'name="EMULATE_TERMINAL" value="true"', 'name="EMULATE_TERMINAL" value="false"'
    )
    assert run_xml(users, wanted) == users
    moved = run_xml(users.replace("/.hairpin/bin/python", "/old"), wanted)
    assert moved == users.replace('value="1"/>', 'value="1" />').replace('value="true"/>', 'value="true" />')
    assert "<!-- mine -->" in moved


def test_what_is_missing_is_put_before_the_method() -> None:
    ((wanted, text),) = written(PYTHON)
    line = f'    <option name="SDK_HOME" value="{ROOT}/.hairpin/bin/python" />\n'
    envs = text[text.index("    <envs>") : text.index("</envs>\n") + len("</envs>\n")]
    again = run_xml(text.replace(line, "").replace(envs, ""), wanted)
    assert options(again) == options(text)
    assert '    <envs>\n      <env name="HAIRPIN_SERVICE" value="checkout" />\n    </envs>\n    <method' in again
    assert run_xml(again, wanted) == again


def test_line_ends_of_windows_stay() -> None:
    ((wanted, text),) = written(PYTHON)
    windows = text.replace("\n", "\r\n")
    assert run_xml(windows, wanted) == windows
    assert run_xml(windows.replace("checkout.py", "x.py"), wanted) == windows


def test_a_main_class_that_the_user_named_stays() -> None:
    ((wanted, text),) = written(Launch(None, "shop", Language.JAVA, ".", UNKNOWN))
    users = text.replace('"MAIN_CLASS_NAME" value=""', '"MAIN_CLASS_NAME" value="a.B"')
    assert users != text
    assert run_xml(users, wanted) == users


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8), max_size=4))
def test_any_argument_survives(arguments: list[str]) -> None:
    launch = Launch(None, "shop", Language.PYTHON, ".", Program(Kind.MODULE, "shop", tuple(arguments)))
    ((wanted, text),) = written(launch)
    assert options(text)["PARAMETERS"] == wanted.options["PARAMETERS"]
    assert run_xml(text, wanted) == text


def test_a_file_that_is_not_ours_is_refused() -> None:
    ((wanted, text),) = written(PYTHON)
    with pytest.raises(ConflictError, match="not ours"):
        run_xml(text.replace(' folderName="hairpin"', ""), wanted)
    with pytest.raises(HairpinError, match="line 2, column 4: is no XML"):
        run_xml("<a>\n </b>", wanted)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cart").mkdir()
    (tmp_path / "hairpin.yaml").write_text(
        "env: alice\nservices:\n  checkout: {target: checkout, command: python checkout.py}\n"
        "  cart: {target: cart, command: go run ., folder: cart}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "local_proxy.ide.shims", SimpleNamespace(write_shims=lambda *_, **__: []))
    return tmp_path


def test_the_command_writes_a_file_for_each(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ide", "intellij"]) == 0
    files = {file.name: file.read_bytes() for file in (project / ".run").iterdir()}
    assert sorted(files) == [
        "hairpin-cart-go-1-start.run.xml",
        "hairpin-cart-go-2-debug.run.xml",
        "hairpin-checkout-python.run.xml",
    ]
    assert main(["ide", "intellij"]) == 0
    assert {file.name: file.read_bytes() for file in (project / ".run").iterdir()} == files
    assert capsys.readouterr().out.count("as it was") == 3


def test_nothing_is_written_if_one_file_is_not_ours(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".run").mkdir()
    (project / ".run" / "hairpin-cart-go-2-debug.run.xml").write_text("<component />")
    assert main(["ide", "intellij"]) == 4
    assert ".run/hairpin-cart-go-2-debug.run.xml: has no configuration" in capsys.readouterr().err
    assert [file.name for file in (project / ".run").iterdir()] == ["hairpin-cart-go-2-debug.run.xml"]


def test_explain_says_what_to_set(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ide", "explain"]) == 0
    told = capsys.readouterr().out
    assert f"{project}/.hairpin/bin/python" in told
    assert "environment: HAIRPIN_SERVICE=cart" in told
    assert f"working folder: {project}/cart" in told
    assert "hairpin run SERVICE -- DEBUGGER" in told
