import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import hairpin
from hairpin import cli
from hairpin.errors import ConflictError, HairpinError


class Greet(cli.Command):
    help = "greet somebody"
    examples = ("hairpin greet --name you",)
    error = None

    def add_arguments(self, parser):
        parser.add_argument("--name")
        parser.add_argument("--loud", action="store_true")

    def run(self, arguments):
        if self.error:
            raise self.error
        print(arguments.name, arguments.command)
        return 5


class Start(Greet):
    help = "start something"
    takes_command = True


class EntryPoint:
    def __init__(self, command):
        self.command = command

    def load(self):
        return self.command


@pytest.fixture
def commands(monkeypatch):
    commands = {"greet": Greet(), "start": Start()}
    monkeypatch.setattr(cli, "_entry_points", lambda: {name: EntryPoint(c) for name, c in commands.items()})
    return commands


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hairpin {hairpin.__version__}\n"


def test_version_imports_nothing_heavy():
    # Whatever the interpreter itself brings is not ours to count.
    source = (
        "import sys; before = set(sys.modules); import hairpin.cli; hairpin.cli.main(['--version']); "
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=20)
    version, loaded = result.stdout.splitlines()
    assert version == f"hairpin {hairpin.__version__}"
    assert loaded.split() == ["__future__", "hairpin", "hairpin.cli"]


def test_help_has_every_command_with_a_line_and_an_example(commands, capsys):
    assert cli.main(["--help"]) == 0
    output = capsys.readouterr().out
    for text in ("greet  greet somebody", "start  start something", "  hairpin greet --name you"):
        assert text in output


def test_no_command_shows_the_help_and_fails(commands, capsys):
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_help_of_one_command(commands, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["help", "greet"])
    assert exit_.value.code == 0
    assert "usage: hairpin greet" in capsys.readouterr().out


def test_a_command_gets_its_flags_and_its_code_is_ours(commands, capsys):
    assert cli.main(["greet", "--name", "you"]) == 5
    assert capsys.readouterr().out == "you []\n"


def test_what_follows_the_dashes_is_the_commands_untouched(commands, capsys):
    assert cli.main(["start", "--name", "a", "--", "python", "-m", "app", "--name", "--", "--debug"]) == 5
    assert capsys.readouterr().out == "a ['python', '-m', 'app', '--name', '--', '--debug']\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gret"], "hairpin: 'gret' is not a command; did you mean greet? (see hairpin --help)"),
        (["xyzzy"], "hairpin: 'xyzzy' is not a command (see hairpin --help)"),
        (
            ["--verbose"],
            "hairpin: --verbose is not a flag of hairpin itself: a command comes first (see hairpin --help)",
        ),
        (
            ["greet", "--nam", "you"],
            "hairpin: greet has no flag --nam; did you mean --name? (see hairpin greet --help)",
        ),
        (["greet", "you"], "hairpin: 'you' is one argument too many (see hairpin greet --help)"),
        (["greet", "--name"], "hairpin: argument --name: expected one argument (see hairpin greet --help)"),
        (["greet", "--", "ls"], "hairpin: greet takes no command after -- (see hairpin greet --help)"),
        (
            ["start", "--name", "a", "python", "app.py"],
            (
                "hairpin: 'python' is not a flag; a command to run comes after --: hairpin start … -- python app.py "
                "(see hairpin start --help)"
            ),
        ),
    ],
)
def test_wrong_command_lines_say_what_would_be_right(commands, capsys, arguments, message):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == message + "\n"
    assert captured.out == ""


def test_an_error_is_one_line_and_its_exit_code(commands, capsys):
    commands["greet"].error = ConflictError("bob holds\nthese requests")
    assert cli.main(["greet"]) == 4
    assert capsys.readouterr().err == "hairpin: bob holds these requests\n"


def test_an_error_that_shows_a_place_keeps_it_under_the_line(commands, capsys):
    commands["greet"].error = HairpinError("--match: 'hedder'\nbegins no condition\n  hedder x=1\n  ^^^^^^")
    assert cli.main(["greet"]) == 1
    assert capsys.readouterr().err == "hairpin: --match: 'hedder' begins no condition\n  hedder x=1\n  ^^^^^^\n"


def test_an_error_out_of_a_task_group_is_one_line_too(commands, capsys):
    commands["greet"].error = ExceptionGroup("tasks", [ExceptionGroup("more", [HairpinError("no tunnel")])])
    assert cli.main(["greet"]) == 1
    assert capsys.readouterr().err == "hairpin: no tunnel\n"


@pytest.mark.parametrize("arguments", [["--debug", "greet"], ["greet", "--debug"]])
def test_debug_shows_the_traceback(commands, arguments):
    commands["greet"].error = HairpinError("no tunnel")
    with pytest.raises(HairpinError):
        cli.main(arguments)


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [HairpinError("x"), ZeroDivisionError()])])
def test_a_bug_keeps_its_traceback(commands, error):
    commands["greet"].error = error
    with pytest.raises(type(error)):
        cli.main(["greet"])


def test_ctrl_c_exits_130(commands):
    commands["greet"].error = KeyboardInterrupt()
    assert cli.main(["greet"]) == 130


def test_a_reader_that_has_gone_is_no_error(commands):
    source = """
import sys
from hairpin import cli

class Flood(cli.Command):
    def run(self, arguments):
        while True:
            sys.stdout.write("line\\n")

class EntryPoint:
    load = Flood

cli._entry_points = lambda: {"flood": EntryPoint}
sys.exit(cli.main(["flood"]))
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_the_installed_commands_load_lightly():
    source = (
        "import sys\nfrom importlib.metadata import entry_points\n"
        "for one in entry_points(group='hairpin.commands'): print(one.name, one.load().help)\n"
        "print([m for m in ('asyncio', 'aiohttp', 'yaml', 'cryptography', 'grpc', 'psutil') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=20)
    *commands, heavy = result.stdout.splitlines()
    assert {line.split()[0] for line in commands} >= {"run", "sessions", "stop"}
    assert all(len(line.split()) > 2 for line in commands)
    assert heavy == "[]"


def test_every_installed_command_has_examples_that_name_it():
    for one in entry_points(group="hairpin.commands"):
        command = one.load()
        assert command.examples
        assert all(example.startswith(f"hairpin {one.name}") for example in command.examples)
