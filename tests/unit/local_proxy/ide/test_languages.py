"""The language of a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_proxy.ide.languages import Language, language_of, languages_of, program_of


@pytest.mark.parametrize(
    ("command", "language"),
    [
        ("python checkout.py", Language.PYTHON),
        ("/opt/venv/bin/python3.12 -m uvicorn app:app", Language.PYTHON),
        ("uv run uvicorn app:app --reload", Language.PYTHON),
        ("env PORT=80 gunicorn app", Language.PYTHON),
        ("./serve.py --port 1", Language.PYTHON),
        ("PORT=1 node server.js", Language.NODE),
        ("npm start", Language.NODE),
        ("go run ./cmd/shop", Language.GO),
        ("java -jar app.jar", Language.JAVA),
        ("./gradlew bootRun", Language.JAVA),
        ("python.exe app.py", Language.PYTHON),
        ("./start.sh", None),
        ("./checkout", None),
        ("", None),
    ],
)
def test_a_command_tells_its_language(command: str, language: Language | None) -> None:
    assert language_of(command.split()) == language


def test_what_only_finds_the_program_is_left_out() -> None:
    assert program_of(["env", "A=1", "poetry", "run", "bin/python3", "-m", "x"]) == ("python3", ("-m", "x"))
    assert program_of(["env", "A=1"]) == ("", ())


@pytest.mark.parametrize(
    ("file", "language"),
    [
        ("pyproject.toml", Language.PYTHON),
        ("requirements-dev.txt", Language.PYTHON),
        ("main.py", Language.PYTHON),
        ("package.json", Language.NODE),
        ("go.mod", Language.GO),
        ("pom.xml", Language.JAVA),
        ("build.gradle.kts", Language.JAVA),
    ],
)
def test_files_tell_where_the_command_does_not(tmp_path: Path, file: str, language: Language) -> None:
    (tmp_path / file).touch()
    assert languages_of(tmp_path, ["./start.sh"]) == (language,)


def test_the_command_wins_and_files_of_other_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "package.json").touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "go.mod").touch()
    assert languages_of(tmp_path, ["node", "a.js"]) == (Language.NODE,)
    assert languages_of(tmp_path) == (Language.PYTHON, Language.NODE)
