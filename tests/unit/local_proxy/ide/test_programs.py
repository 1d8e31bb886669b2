"""What a command starts, as a debugger is told it."""

from __future__ import annotations

import pytest

from local_proxy.ide.languages import Language
from local_proxy.ide.programs import UNKNOWN, Kind, Program, program_in

PYTHON, NODE, GO, JAVA = Language.PYTHON, Language.NODE, Language.GO, Language.JAVA


@pytest.mark.parametrize(
    ("command", "language", "program"),
    [
        ("python checkout.py --port 1", PYTHON, Program(Kind.FILE, "checkout.py", ("--port", "1"))),
        ("python -X dev -u app/main.py", PYTHON, Program(Kind.FILE, "app/main.py", (), ("-X", "dev", "-u"))),
        ("python -u -m shop.checkout -m x", PYTHON, Program(Kind.MODULE, "shop.checkout", ("-m", "x"), ("-u",))),
        ("uv run uvicorn app:app --reload", PYTHON, Program(Kind.MODULE, "uvicorn", ("app:app", "--reload"))),
        ("./serve.py a", PYTHON, Program(Kind.FILE, "./serve.py", ("a",))),
        ("python -c print(1)", PYTHON, UNKNOWN),
        ("./start.sh", PYTHON, UNKNOWN),
        ("node server.js", PYTHON, UNKNOWN),
        ("node -r dotenv/config --enable-source-maps s.js 80", NODE,
         Program(Kind.FILE, "s.js", ("80",), ("-r", "dotenv/config", "--enable-source-maps"))),
        ("npm start", NODE, Program(Kind.FILE, "server.js", ("-v",))),
        ("npm run piped", NODE, UNKNOWN),
        ("npm run missing", NODE, UNKNOWN),
        ("npm run loop", NODE, UNKNOWN),
        ("go run ./cmd/shop -v", GO, Program(Kind.PACKAGE, "./cmd/shop", ("-v",))),
        ("go run -tags dev .", GO, Program(Kind.PACKAGE, ".", (), ("-tags", "dev"))),
        ("go run cmd/a.go cmd/b.go x", GO, Program(Kind.PACKAGE, "cmd", ("x",))),
        ("./checkout -v", GO, Program(Kind.PACKAGE, ".", ("-v",))),
        ("java -Xmx1g -cp build/classes com.shop.Main 80", JAVA,
         Program(Kind.CLASS, "com.shop.Main", ("80",), ("-Xmx1g",))),
        ("java -jar app.jar", JAVA, UNKNOWN),
        ("java Main.java", JAVA, UNKNOWN),
        ("mvn spring-boot:run", JAVA, UNKNOWN),
        ("", PYTHON, UNKNOWN),
    ],
)  # fmt: skip
def test_a_command_says_what_it_starts(command: str, language: Language, program: Program) -> None:
    scripts = {"start": "node server.js -v", "piped": "node a.js | tee log", "loop": "npm run loop"}
    assert program_in(command.split(), language, scripts) == program
