"""IntelliJ's, PyCharm's, WebStorm's and GoLand's shared run configurations, `.run/NAME.run.xml`. Pure: texts in, texts out.

What we set are some of a configuration's attributes and options. What else a user or the IDE adds stays, in its order. The
marker is the folder in which the IDE lists a configuration, `hairpin`: comments and attributes of our own would be lost
when the IDE writes the file anew.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from hairpin.errors import ConflictError, HairpinError
from local_proxy.ide.languages import Language
from local_proxy.ide.launches import Launch
from local_proxy.ide.programs import Kind
from local_proxy.project.settle import SERVICE_VARIABLE

_ROOT = "$PROJECT_DIR$"
_SHIMS = f"{_ROOT}/.hairpin"
_FOLDER = "hairpin"
_DELVE_PORT = 2345
"""GoLand's own default for Go Remote."""


@dataclass(frozen=True, slots=True)
class RunConfiguration:
    """What a file of ours says."""

    name: str
    attributes: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)
    """Set at each run."""
    first: Mapping[str, str] = field(default_factory=dict)
    """Options that are set once: what a user may well change."""
    environment: Mapping[str, str] = field(default_factory=dict)
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Other elements, by name, with their attributes."""
    make: bool = False
    """Whether the IDE builds the project before."""

    @property
    def file(self) -> str:
        """Its file's name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-") + ".run.xml"


def run_configurations(launch: Launch) -> tuple[RunConfiguration, ...]:
    """How these IDEs start a program under their debugger, through the shim; for Go, two steps."""
    environment = {SERVICE_VARIABLE: launch.service} if launch.service is not None else {}
    match launch.language:
        case Language.PYTHON:
            return (_python(launch, environment),)
        case Language.NODE:
            return (_node(launch, environment),)
        case Language.JAVA:
            return (_java(launch, environment),)
        case Language.GO:
            return _go(launch)


def _python(launch: Launch, environment: Mapping[str, str]) -> RunConfiguration:
    program = launch.program
    known = program.kind in (Kind.FILE, Kind.MODULE)
    what = {
        "SCRIPT_NAME": program.what if program.kind is Kind.MODULE else _inside(launch.folder, program.what),
        "PARAMETERS": shlex.join(program.arguments),
        "MODULE_MODE": _yes(program.kind is Kind.MODULE),
        "INTERPRETER_OPTIONS": shlex.join(program.options),
    }
    options = {
        "SDK_HOME": f"{_SHIMS}/bin/python",
        "IS_MODULE_SDK": "false",
        "WORKING_DIRECTORY": _inside(launch.folder),
        **(what if known else {}),
    }
    first = {"PARENT_ENVS": "true", "ADD_CONTENT_ROOTS": "true", "ADD_SOURCE_ROOTS": "true", "EMULATE_TERMINAL": "true"}
    return RunConfiguration(
        launch.name,
        {"type": "PythonConfigurationType", "factoryName": "Python"},
        options,
        first if known else {**first, "SCRIPT_NAME": "", "MODULE_MODE": "false"},
        environment,
    )


def _node(launch: Launch, environment: Mapping[str, str]) -> RunConfiguration:
    program = launch.program
    attributes = {
        "type": "NodeJSConfigurationType",
        "path-to-node": f"{_SHIMS}/bin/node",
        "working-dir": _inside(launch.folder),
    }
    if program.kind is Kind.FILE:
        attributes["path-to-js-file"] = posixpath.normpath(program.what)  # WebStorm starts it at working-dir
        attributes |= {"application-parameters": shlex.join(program.arguments)} if program.arguments else {}
        attributes |= {"node-parameters": shlex.join(program.options)} if program.options else {}
    return RunConfiguration(launch.name, attributes, environment=environment)


def _java(launch: Launch, environment: Mapping[str, str]) -> RunConfiguration:
    program = launch.program
    options = {
        "ALTERNATIVE_JRE_PATH": f"{_SHIMS}/jdk",
        "ALTERNATIVE_JRE_PATH_ENABLED": "true",
        "WORKING_DIRECTORY": _inside(launch.folder),
    }
    first = {}
    if program.kind is Kind.CLASS:
        options |= {"MAIN_CLASS_NAME": program.what, "PROGRAM_PARAMETERS": shlex.join(program.arguments)}
        options |= {"VM_PARAMETERS": shlex.join(program.options)} if program.options else {}
    else:
        first = {"MAIN_CLASS_NAME": ""}
    attributes = {"type": "Application", "factoryName": "Application"}
    return RunConfiguration(launch.name, attributes, options, first, environment, make=True)


def _go(launch: Launch) -> tuple[RunConfiguration, ...]:
    """GoLand debugs with the Delve that it brings, so hairpin runs Delve, and GoLand attaches."""
    program = launch.program
    package = program.what if program.kind is Kind.PACKAGE else "."
    # Delve takes a path that starts with a dot for a folder, and other words for a package's import path.
    delve = ["dlv", "debug", package, "--headless", f"--listen=127.0.0.1:{_DELVE_PORT}", "--api-version=2"]
    delve += ["--accept-multiclient"] + ([f"--build-flags={shlex.join(program.options)}"] if program.options else [])
    delve += ["--", *program.arguments] if program.arguments else []
    words = ["hairpin", "run", *([launch.service] if launch.service else []), "--", *delve]
    script = {
        "SCRIPT_TEXT": shlex.join(words),
        "INDEPENDENT_SCRIPT_PATH": "true",
        "SCRIPT_PATH": "",
        "SCRIPT_OPTIONS": "",
        "INDEPENDENT_SCRIPT_WORKING_DIRECTORY": "true",
        "SCRIPT_WORKING_DIRECTORY": _inside(launch.folder),
        "EXECUTE_SCRIPT_FILE": "false",
    }
    first = {
        "INDEPENDENT_INTERPRETER_PATH": "true",
        "INTERPRETER_PATH": "/bin/sh",
        "INTERPRETER_OPTIONS": "",
        "EXECUTE_IN_TERMINAL": "true",
    }
    start = RunConfiguration(f"{launch.name} 1 start", {"type": "ShConfigurationType"}, script, first)
    remote = {"type": "GoRemoteDebugConfigurationType", "factoryName": "Go Remote", "port": str(_DELVE_PORT)}
    # STOP: the session ends with the debugging.
    attach = RunConfiguration(
        f"{launch.name} 2 debug", remote, first={"disconnectOption": "STOP"}, elements={"disconnect": {"value": "STOP"}}
    )
    return start, attach


def _inside(folder: str, path: str = "") -> str:
    inner = posixpath.normpath(posixpath.join(folder, path))
    return inner if posixpath.isabs(inner) else _ROOT if inner == "." else f"{_ROOT}/{inner}"


def _yes(value: bool) -> str:
    return str(value).lower()


def run_xml(text: str | None, wanted: RunConfiguration) -> str:
    """A file of ours, with what we set; the same text if it says all that already.

    Args:
        text: as it is; None if there is none.
        wanted: what it is to say.

    Raises:
        HairpinError: the text is no XML.
        ConflictError: the file has a configuration that is not ours.
    """
    if text is None:
        return _new(wanted)
    try:
        builder = ET.TreeBuilder(insert_comments=True)
        # The user's own file, and entities from outside are not read by this parser.
        root = ET.fromstring(text.encode(), ET.XMLParser(target=builder))  # noqa: S314
    except ET.ParseError as error:
        line, column = error.position
        raise HairpinError(f"line {line}, column {column + 1}: is no XML; mend it; nothing was written") from None
    configuration = next((one for one in root.iter("configuration") if one.get("name") == wanted.name), None)
    if configuration is None or configuration.get("folderName") != _FOLDER:
        raise ConflictError(
            f'has no configuration {wanted.name!r} with folderName="{_FOLDER}", so it is not ours; '
            "rename the file, or put the configuration back into the folder hairpin; nothing was written"
        )
    if not _updated(configuration, wanted):
        return text
    edited = ET.tostring(root, encoding="unicode")
    declaration = re.match(r"\ufeff?<\?xml[^>]*\?>\s*", text)
    edited = (declaration[0] if declaration else "") + edited + ("\n" if text.endswith("\n") else "")
    return edited.replace("\n", "\r\n") if "\r\n" in text else edited


def _new(wanted: RunConfiguration) -> str:
    root = ET.Element("component", name="ProjectRunConfigurationManager")
    attributes = {"default": "false", "name": wanted.name, "folderName": _FOLDER}
    configuration = ET.SubElement(root, "configuration", attributes)
    _updated(configuration, wanted)
    for name, value in wanted.first.items():
        if _option(configuration, name) is None:
            ET.SubElement(configuration, "option", name=name, value=value)
    for name, values in wanted.elements.items():
        ET.SubElement(configuration, name, dict(values))
    method = ET.SubElement(configuration, "method", v="2")
    if wanted.make:
        ET.SubElement(method, "option", name="Make", enabled="true")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _updated(configuration: ET.Element, wanted: RunConfiguration) -> bool:
    """Set what is not so yet; whether there was anything."""
    changed = False
    for name, value in wanted.attributes.items():
        changed |= _set(configuration, name, value)
    for name, value in wanted.options.items():
        option = _option(configuration, name)
        if option is None:
            _insert(configuration, ET.Element("option", name=name, value=value))
            changed = True
        else:
            changed |= _set(option, "value", value)
    if wanted.environment:
        changed |= _environment(configuration, wanted.environment)
    return changed


def _environment(configuration: ET.Element, environment: Mapping[str, str]) -> bool:
    changed = False
    envs = configuration.find("envs")
    if envs is None:
        envs = ET.Element("envs")
        _insert(configuration, envs)
    for name, value in environment.items():
        env = next((one for one in envs.findall("env") if one.get("name") == name), None)
        if env is None:
            _insert(envs, ET.Element("env", name=name, value=value))
            changed = True
        else:
            changed |= _set(env, "value", value)
    return changed


def _option(configuration: ET.Element, name: str) -> ET.Element | None:
    return next((one for one in configuration.findall("option") if one.get("name") == name), None)


def _set(element: ET.Element, name: str, value: str) -> bool:
    if element.get(name) == value:
        return False
    element.set(name, value)
    return True


def _insert(parent: ET.Element, child: ET.Element) -> None:
    """Before `<method>`, which IDEs write last; with the white space of its neighbours."""
    method = parent.find("method")
    place = len(parent) if method is None else list(parent).index(method)
    if len(parent) == 0:
        child.tail = parent.tail
        parent.text = f"{parent.tail}  " if parent.tail and not parent.tail.strip() else None
    elif place == len(parent):
        parent[-1].tail, child.tail = parent.text, parent[-1].tail
    else:
        child.tail = parent.text
    parent.insert(place, child)
