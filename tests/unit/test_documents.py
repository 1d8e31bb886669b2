"""What the documents say of this repository holds: links lead somewhere, commands and flags exist, `make` has the targets.

What a command of the documents does is tested where the command is; here, that it can be typed as it stands there.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

from hairpin import cli
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.model.egress_json import egress_policy_from_json
from hairpin.model.environment_json import environment_resource_from_json
from hairpin.model.session import Session, SessionSpec, SessionStatus
from local_proxy.laptop import ConnectionSeen
from local_proxy.messages import calls_text, claim_text, connection_text, request_text, sighting_text
from local_proxy.ports import Listener, Sighting
from local_proxy.project.file import read_project
from local_proxy.project.keys import flags_of, keys_of
from local_proxy.session_store import RequestSeen

ROOT = Path(__file__).parents[2]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md"))])
COMMANDS = {one.name: one.load() for one in entry_points(group=cli.GROUP)}
PARSERS = {name: cli._parser(name, command) for name, command in COMMANDS.items()}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
NOT_IN_CI = {"lock": "it needs uv and asks a package index for its newest", "clean": "a test here runs it"}
OTHERS_FLAGS = {
    "--component-log-level": "Envoy",
    "--file-flush-interval-msec": "Envoy",
    "--pause": "python -m bench.chaos",
    "--replicas": "python -m bench.chaos",
    "--listen": "debugpy",
    "--inspect": "node",
    "--run": "node",
    "--no-X": "any of hairpin's",
}
"""Flags that the documents name by themselves and that are none of hairpin's, with whose they are."""

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = {"sh", "console"}
"""Fences whose lines are typed; in `console` those after `$`."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^    .*$", "", FENCE.sub("", page.read_text()), flags=re.MULTILINE)


def spans(page: Path) -> list[str]:
    """What stands between backticks."""
    return [" ".join(span.replace("\\|", "|").split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def typed(page: Path) -> Iterator[str]:
    """The commands in a page's blocks."""
    for language, block in FENCE.findall(page.read_text()):
        kind = language.partition(" ")[0]
        for line in block.splitlines():
            if kind == "console" and line.startswith("$ "):
                yield line.removeprefix("$ ")
            elif kind == "sh":
                yield line
    for line in re.findall(r"^    (\S.*)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        yield line


def headings(page: Path) -> set[str]:
    """A page's anchors, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).strip().replace(" ", "-")
        number = next(n for n in range(100) if (f"{anchor}-{n}" if n else anchor) not in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """A parser's long flags, those of its subcommands too."""
    found = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {flag for one in action.choices.values() for flag in flags(one)}
    return found


def commands(page: Path) -> Iterator[tuple[str, list[str], bool]]:
    """The commands of hairpin's in a page: as it stands there, its words, and whether it can be typed as it stands."""
    for whole, texts in ((True, typed(page)), (False, spans(page))):
        for text in texts:
            if text.startswith("hairpin ") and not text.startswith("hairpin --"):
                yield text, shlex.split(text, comments=True)[1:], whole and not re.search(r"[…\[]|\.\.\.", text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link} is no file"
        assert not anchor or anchor in headings(target), f"{link}: there is no such heading"


def test_readme_leads_to_every_page():
    found, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        found.add(page)
        linked = [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+\.md)", prose(page))]
        left += [one for one in linked if one not in found]
    # Decisions have an order of their own; agents and the changelog are found by their names.
    assert {named(page) for page in PAGES if page not in found and page.parent.name != "decisions"} <= {
        "AGENTS.md",
        "CHANGELOG.md",
    }


def test_pages_that_code_names_exist():
    sources = [path for folder in FOLDERS for path in folder.rglob("*.py")]
    for source in [*sources, *(ROOT / "examples").rglob("*.yaml"), ROOT / "Makefile", ROOT / "pyproject.toml"]:
        for page in re.findall(r"\bdocs/[\w/.-]+\.(?:md|json)\b", source.read_text()):
            assert (ROOT / page).is_file(), f"{named(source)} names {page}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_exist(page):
    tops = {path.name for path in FOLDERS} | {".ci"}
    for span in spans(page):
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?", span) and span.partition("/")[0] in tops:
            assert list(ROOT.glob(span.rstrip("/"))), f"there is no {span}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_hairpins_commands_and_their_flags_exist(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, (name, *words), complete in commands(page):
        assert name in COMMANDS, f"`{text}`: there is no {name}"
        own = words[: words.index("--")] if "--" in words else words
        given = {word.partition("=")[0].strip("[]") for word in own if re.match(r"\[?--\w", word)}
        assert given <= flags(PARSERS[name]), f"`{text}`: {given - flags(PARSERS[name])} is not a flag of {name}"
        if complete:
            # A parser of its own: `parse` changes its defaults.
            _, extra = COMMANDS[name].parse(cli._parser(name, COMMANDS[name]), own)
            assert not extra, f"`{text}`: {extra} is too much"
            assert "--" not in words or COMMANDS[name].takes_command, f"`{text}`: {name} takes no command"


def test_flags_that_are_named_by_themselves_are_somebodys():
    known = {"--version", "--help"}.union(*(flags(parser) for parser in PARSERS.values()))
    for page in PAGES:
        for span in spans(page):
            if flag := re.match(r"--[a-z][\w-]*", span):
                assert flag[0] in known or flag[0] in OTHERS_FLAGS, f"{named(page)}: {flag[0]} is nobody's"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_flag_has_a_line_in_the_documents(name):
    written = "\n".join(page.read_text() for page in PAGES)
    missing = [
        flag for flag in sorted(flags(PARSERS[name]) - {"--help"}) if not re.search(rf"{flag}(?![\w-])", written)
    ]
    assert not missing, f"no page names {missing}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_blocks_of_commands_say_so(page):
    """Else what is in them would not be looked at here."""
    for language, block in FENCE.findall(page.read_text()):
        if language.partition(" ")[0] not in TYPED:
            typed_alike = re.compile(
                rf"hairpin ({'|'.join(COMMANDS)})( [^─]*)?|(make|python -m|kubectl|docker|helm) [a-z].*"
            )
            lines = [line for line in block.splitlines() if typed_alike.fullmatch(line)]
            assert not lines, f"write ```sh, or ```console and $: {lines}"


def read_settings(document: object, folder: Path) -> None:
    (folder / "hairpin.yaml").write_text(yaml.safe_dump(document))
    project = read_project(folder / "hairpin.yaml", keys_of(flags_of(COMMANDS["run"])))
    assert project.common.values or project.services


READERS = {
    "EgressPolicy": lambda document, _: egress_policy_from_json(document),
    "Environment": lambda document, _: environment_resource_from_json(document),
    "mesh.md": lambda document, _: mesh_from_document(document, itertools.count(20000)),
    "settings.md": read_settings,
    "Service": lambda document, _: None,  # Kubernetes' own: tests/istio has one by a published address
}
"""By kind, else by page."""


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in page.read_text()], ids=named)
def test_examples_in_yaml_are_read(page, tmp_path):
    for language, block in FENCE.findall(page.read_text()):
        if language == "yaml":
            document = yaml.safe_load(block)
            READERS[document.get("kind", page.name)](document, tmp_path)


def test_make_has_the_targets_that_are_named():
    for page in PAGES:
        for text in [*typed(page), *spans(page)]:
            if text.startswith("make "):
                words = [word for word in shlex.split(text, comments=True)[1:] if "=" not in word]
                assert set(words) <= TARGETS, f"{named(page)}: `{text}`"


def test_contributing_names_every_target():
    targets = {span.split()[1] for span in spans(ROOT / "CONTRIBUTING.md") if span.startswith("make ")}
    assert targets >= TARGETS - {"help"}


def test_ci_runs_every_target():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith(("say ", "#"))]
    called = {word for line in lines for words in re.findall(r"\bmake ([a-z -]+)", line) for word in words.split()}
    assert called == TARGETS - set(NOT_IN_CI)


def test_make_clean_takes_out_what_was_built_and_nothing_else(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for folder in (".venv", ".mypy_cache", "hairpin"):
        (tmp_path / folder).mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True, timeout=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "hairpin"]


def test_modules_that_are_run_exist(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for page in PAGES:
        for text in [*typed(page), *spans(page)]:
            if found := re.match(r"python -m ((?:bench|tests|agent|xds_server|hairpin)[\w.]*)", text):
                assert importlib.util.find_spec(found[1]) is not None, f"{named(page)}: `{text}`"


def test_readme_shows_what_hairpin_run_prints():
    """The console's lines that are made of a session, word for word."""
    told = (ROOT / "README.md").read_text().replace("\nhairpin ", "\n")
    status = SessionStatus(resolved_target="shop/deployment/checkout:8080")
    session = Session(
        name="checkout-alice-x7k2p",
        namespace="shop",
        owner="alice",
        created=datetime.now(UTC),
        spec=SessionSpec(),
        status=status,
    )
    sighting = Sighting(Listener(host="127.0.0.1", port=34723, bound="127.0.0.1", process="python"))
    called = ConnectionSeen(
        authority="10.96.31.7:80", name="inventory", sent=156, received=612, duration_ms=5, refused=""
    )
    came = RequestSeen(
        method="GET",
        authority="checkout",
        path="/?mug=2&shirt=2",
        status=200,
        duration_ms=13,
        served="via_upstream",
    )
    for line in (
        claim_text(session, "environment alice"),
        calls_text(24761, command=True, kept=False, intercepted=True),
        sighting_text(sighting, port=None, took=False),
        connection_text(called),
        request_text(came),
    ):
        assert f"\n{line}\n" in told


def test_readme_installs_what_it_says(capsys):
    """README's own command, without a cluster."""
    (line,) = [line for line in typed(ROOT / "README.md") if line.startswith("hairpin install ")]
    assert cli.main([*shlex.split(line)[1:], "--dry-run"]) == 0
    assert "registry.example.com/hairpin:0.1.0" in capsys.readouterr().out
