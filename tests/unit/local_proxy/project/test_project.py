"""hairpin.yaml: what it says, what wins over it, and how it is told of."""

from __future__ import annotations

import argparse

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given

from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.model.session import Mode
from hairpin.yaml_file import load_yaml_lines
from local_proxy.commands.run import command
from local_proxy.commands.sessions import command as sessions
from local_proxy.commands.settings import settled_connection
from local_proxy.commands.stop import command as stop
from local_proxy.control_planes import Connection
from local_proxy.options import run_options
from local_proxy.project.file import filled_in, find_project
from local_proxy.project.keys import UnsupportedFlagError, document_shape, flags_of, keys_of
from local_proxy.project.schema import project_json_schema
from local_proxy.project.settle import settle

KEYS = keys_of(flags_of(command))
SHAPE = document_shape(KEYS)
SCHEMA = jsonschema.Draft202012Validator(project_json_schema())


def settled(folder, typed="", *run, **environ):
    words = typed.split() if isinstance(typed, str) else typed
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments, extra = command.parse(parser, words)
    assert not extra
    arguments.command = list(run)
    return settle(command, arguments, environ, folder)


def connection(folder, monkeypatch, of, typed="", **environ):
    """The connection that `hairpin sessions` or `hairpin stop` means, typed in a folder."""
    parser = argparse.ArgumentParser()
    of.add_arguments(parser)
    arguments, extra = of.parse(parser, typed.split())
    assert not extra
    monkeypatch.chdir(folder)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return settled_connection(arguments)


def options(folder, typed="", *run, **environ):
    found = settled(folder, typed, *run, **environ)
    try:
        return run_options(found.arguments)
    except InvalidFieldError as error:
        raise found.told(error) from None


def write(folder, text):
    (folder / "hairpin.yaml").write_text(text)
    return folder


def test_every_flag_has_its_key():
    # A flag that fails here is declared in a way that a file can't say: the error says what to change.
    parser = flags_of(command)
    flags = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert {key.flag for key in KEYS.values()} == flags - {"--file", "--no-file"}
    assert KEYS["requests"].flag == "--no-requests"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"action": "store_false"}, '--new is a switch, but not `action="store_true"`'),
        ({"action": "count"}, "--new is a switch"),
        ({"nargs": 2}, "--new takes 2 words.*declare it with one"),
    ],
)
def test_a_flag_that_no_key_can_stand_for_is_told_with_what_to_do(declared, message):
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--new", **declared)
    with pytest.raises(UnsupportedFlagError, match=message):
        keys_of(parser)


def test_a_run_needs_no_flags(tmp_path):
    write(
        tmp_path,
        "env: $USER\ntarget: deployment/checkout:8080\nnamespace: shop\ncommand: python 'my app.py' -v\nlease: 2m\nrequests: false\n",
    )
    asked = options(tmp_path, USER="alice")
    assert asked.command == ("python", "my app.py", "-v")
    assert (asked.environment, str(asked.target), asked.target.namespace) == (
        "alice",
        "deployment/checkout:8080",
        "shop",
    )
    assert (asked.lease_seconds, asked.requests) == (120, False)


def test_the_nearest_file_upwards_is_found_and_its_command_runs_beside_it(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    write(tmp_path, "env: e\ntarget: t\ncommand: ./app\n")
    assert find_project(below) == tmp_path / "hairpin.yaml"
    assert settled(below).folder == tmp_path
    write(tmp_path / "a", "env: e\ntarget: other\ncommand: ./app\nfolder: b\n")
    found = settled(below)
    assert (found.arguments.target, found.folder) == ("other", below)


def test_what_is_typed_wins_and_comes_first_in_lists(tmp_path):
    write(tmp_path, "env: e\ntarget: t\nport: 80\nlocal: [file]\ncommand: ./app\nkubeconfig: kube/config\n")
    asked = options(tmp_path, "--port 90 --local typed -e mine", "other")
    assert (asked.port, asked.environment, asked.command) == (90, "mine", ("other",))
    assert settled(tmp_path, "--local typed").arguments.rules == [("local", "typed"), ("local", "file")]
    assert settled(tmp_path).arguments.kubeconfig == str(tmp_path / "kube/config")
    assert settled(tmp_path, "--config mesh.yaml").arguments.kubeconfig is None
    assert settled(tmp_path, "--no-file").arguments.target is None


def test_rules_keep_the_order_of_the_file(tmp_path):
    write(tmp_path, "mode: egress\nrefuse: [a]\nlocal: [b, c]\nmesh: [d]\n")
    rules = settled(tmp_path).arguments.rules
    assert rules == [("refuse", "a"), ("local", "b"), ("local", "c"), ("mesh", "d")]


def test_egress_typed_sets_the_files_target_aside(tmp_path):
    write(tmp_path, "env: e\ntarget: t\nport: 80\nmatch: path /x\n")
    asked = options(tmp_path, "--mode egress", "pytest")
    assert (asked.target, asked.port, asked.match, asked.environment) == (None, None, None, "e")


def test_a_service_has_its_keys_and_those_above_for_the_rest(tmp_path):
    write(
        tmp_path,
        "env: e\nport: 80\nlocal: [all]\ncommand: ./app\nservices:\n"
        "  checkout: {target: checkout, port: 90, local: one}\n  jobs: {mode: egress}\n",
    )
    found = settled(tmp_path, "checkout")
    assert (found.arguments.target, found.arguments.port) == ("checkout", "90")
    assert found.arguments.rules == [("local", "one"), ("local", "all")]
    assert found.source.endswith("hairpin.yaml, service checkout")
    assert settled(tmp_path, HAIRPIN_SERVICE="checkout").arguments.target == "checkout"
    assert options(tmp_path, "jobs").port is None  # without meaning in its mode, so set aside


SEVERAL = (
    "context: staging\nnamespace: shop\nkubeconfig: kube/config\nenv: ${NOBODY}\nservices:\n"
    "  checkout: {target: checkout}\n  jobs: {namespace: batch}\n"
)


@pytest.mark.parametrize("of", [sessions, stop], ids=["sessions", "stop"])
def test_sessions_are_looked_for_where_the_file_says_though_they_are_of_no_service(tmp_path, monkeypatch, capsys, of):
    found = connection(write(tmp_path, SEVERAL), monkeypatch, of)  # several services, and a variable that is not set
    assert found == Connection(context="staging", namespace="shop", kubeconfig=str(tmp_path / "kube/config"))
    assert capsys.readouterr().err == "settings: hairpin.yaml\n"
    assert connection(tmp_path, monkeypatch, of, "-n other --context prod").namespace == "other"
    assert connection(tmp_path, monkeypatch, of, "--config mesh.yaml") == Connection(
        config="mesh.yaml", namespace="shop"
    )
    capsys.readouterr()
    assert connection(tmp_path, monkeypatch, of, "--no-file") == Connection()
    assert not capsys.readouterr().err
    assert connection(tmp_path, monkeypatch, of, HAIRPIN_SERVICE="jobs").namespace == "batch"
    with pytest.raises(HairpinError, match=r"HAIRPIN_SERVICE: 'job' is no service of hairpin\.yaml; did you mean jobs"):
        connection(tmp_path, monkeypatch, of, HAIRPIN_SERVICE="job")


def test_the_sessions_of_all_namespaces_are_not_those_of_the_files(tmp_path, monkeypatch):
    found = connection(write(tmp_path, SEVERAL), monkeypatch, sessions, "-A")
    assert (found.context, found.namespace, found.everywhere) == ("staging", None, True)


def test_the_only_service_says_where_its_sessions_are(tmp_path, monkeypatch):
    write(tmp_path, "context: staging\nservices:\n  checkout: {namespace: shop}\n")
    assert connection(tmp_path, monkeypatch, stop, "--all").namespace == "shop"


def test_an_empty_key_of_the_connection_is_told_with_its_line(tmp_path, monkeypatch):
    write(tmp_path, 'context: staging\nnamespace: "${NOBODY:-}"\n')
    with pytest.raises(HairpinError, match=r"hairpin\.yaml:2: namespace"):
        connection(tmp_path, monkeypatch, sessions)


def test_every_mode_can_stand_in_the_file(tmp_path):
    for mode in Mode:
        assert settled(write(tmp_path, f"mode: {mode}\n")).arguments.mode == mode


@pytest.mark.parametrize(
    ("text", "typed", "message"),
    [
        ("target: t\nprot: 80\n", "", "hairpin.yaml:2: prot: 80 is in no known field; did you mean 'port'?"),
        ("services:\n  a:\n    prot: 80\n", "", "hairpin.yaml:3: services.a.prot: 80 is in no known field"),
        ("env: a\ntarget: t\nlease: soon\ncommand: x\n", "", "hairpin.yaml:3: lease: 'soon' is no time"),
        ("target: pood/x\nenv: e\ncommand: x\n", "", "hairpin.yaml:1: target: 'pood/x' has an unknown kind"),
        ("mode: steel\n", "", "hairpin.yaml:1: mode: 'steel' is no choice; did you mean 'steal'?"),
        ("target: t\nlocal:\n  - a\n  - [b]\n", "", r"hairpin.yaml:4: local\[1\]: .* is neither a text"),
        ("target:\n", "", "hairpin.yaml:1: target is empty; write "),
        ("quiet: yes\n", "", "hairpin.yaml:1: quiet: 'yes' is neither true nor false"),
        (
            "target: t\nenv: ${NOBODY}\n",
            "",
            r"hairpin.yaml:2: env: the variable NOBODY is not set; .* \$\{NOBODY:-VALUE\}",
        ),
        ("services: {a: {}, b: {}}\n", "", "has several services: a, b; say which: hairpin run a"),
        ("services: {cart: {}, b: {}}\n", "cat", "'cat' is no service of .*; did you mean cart"),
        ("env: e\n", "cart", "'cart' is no service of .*; it has no services"),
        ("a: [\n", "", "hairpin.yaml:2:1: .* is no YAML"),
        ('target: t\ncommand: "echo \'x"\n', "", "hairpin.yaml:2: command: .* can't be split"),
        ("env: e\ntarget: t\ncommand: x\nfolder: none\n", "", "there is no folder"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, text, typed, message):
    write(tmp_path, text)
    with pytest.raises(HairpinError, match=message):
        options(tmp_path, typed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "1"),
        ("${A}-${B:-x}", "1-x"),
        ("${B:-${A}}", "1"),
        ("${B:-$A}", "1"),
        ("^/api$", "^/api$"),
        ("path ^/$A/x", "path ^/$A/x"),
        ("$${A}", "${A}"),
    ],
)
def test_variables(text, expected):
    assert filled_in(text, {"A": "1"}, "here") == expected


def test_lines_of_fields(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: 1\nb:\n  c:\n  - 1\n  - {d: 2}\n")
    assert load_yaml_lines(path)[1] == {"a": 1, "b": 2, "b.c": 3, "b.c[0]": 4, "b.c[1]": 5, "b.c[1].d": 5}


SCALARS = st.one_of(
    st.sampled_from(["a", "", "80", "$USER", "${X}", "steal", "steel", "65536", "0", "x\n"]),
    st.sampled_from([0, 1, 80, 65535, 65536, 1.0, 1.5, True, False, None]),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(["a", "-"]), SCALARS, max_size=2)
)
SERVICE = st.dictionaries(st.sampled_from([*KEYS, "command", "folder", "unknown"]), VALUES, max_size=4)
DOCUMENTS = st.one_of(
    SERVICE,
    st.builds(
        lambda top, services: {**top, "services": services},
        SERVICE,
        st.one_of(VALUES, st.dictionaries(st.sampled_from(["checkout", "a.b", "-x", "x\n", ""]), SERVICE, max_size=2)),
    ),
)


@given(DOCUMENTS)
def test_the_schema_says_what_the_reader_says(document):
    try:
        SHAPE.read(document, "")
    except InvalidFieldError:
        taken = False
    else:
        taken = True
    assert SCHEMA.is_valid(document) == taken


@given(st.sampled_from(sorted(KEYS)), SCALARS)
def test_what_the_schema_takes_for_one_key_the_flags_parser_takes(name, value):
    if SCHEMA.is_valid({name: value}):
        key = KEYS[name]
        flags_of(command).parse_args(key.words(key.shape.read(value, name)))
