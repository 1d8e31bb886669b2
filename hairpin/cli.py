"""The command line: finds the subcommands, runs one, and turns errors into a line and an exit code.

It imports nothing but `sys` until it knows what was asked, so that `hairpin --version` answers at once. Each of the
other packages brings its own subcommands as entry points of the group `hairpin.commands`: the name of the entry point
is the subcommand's, its object an instance of `Command`. The module that holds it must be light: what is heavy to
import belongs inside `run`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take it for true; importing `typing` for it would cost milliseconds
    import argparse
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint

GROUP = "hairpin.commands"
"""The entry points' group."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell would report it: 128 + SIGINT."""

USAGE_ERROR = 2
"""The exit code for a command line that can't be understood; the same as a field's that is wrong."""


class Command:
    """A subcommand. Subclass it, and name an instance as an entry point.

    Attributes:
        help: one line, without a full stop, for `hairpin --help`.
        description: a paragraph for the subcommand's own `--help`; `help` if empty.
        examples: command lines that a user can type as they stand, for both helps (the first one in `hairpin --help`).
        takes_command: whether something after `--` is allowed; it arrives as `arguments.command`, a list.
    """

    help: str = ""
    description: str = ""
    examples: tuple[str, ...] = ()
    takes_command: bool = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add flags and positional arguments; the parser may also get subparsers."""

    def parse(self, parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Read the command line's words; what no argument takes is returned beside."""
        return parser.parse_known_args(words)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code. A HairpinError becomes one line on stderr and its exit code."""
        raise NotImplementedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; the process's own if None.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("--version", "-V"):
        from hairpin import __version__  # noqa: PLC0415

        sys.stdout.write(f"hairpin {__version__}\n")
        return 0
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    head = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in head
    try:
        return _dispatch([argument for argument in head if argument != "--debug"], arguments[len(head) + 1 :])
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`hairpin sessions | head`): that is no error of ours. What is still
        # buffered goes nowhere, lest the interpreter complain at its end.
        import os  # noqa: PLC0415

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = _hairpin_error(error)
        if known is None or debug:
            raise
        sys.stderr.write(f"hairpin: {_told(known)}\n")
        return int(getattr(known, "exit_code", 1))


def _told(error: BaseException) -> str:
    """An error in one line, but for the lines that show a place in what the user typed: those are indented."""
    message, indent, shown = str(error).partition("\n  ")
    return " ".join(message.split()) + indent + shown.rstrip()


def _hairpin_error(error: BaseException) -> BaseException | None:
    """The HairpinError in an error, also in the group that a TaskGroup wraps it in; None if there is a bug in it."""
    from hairpin.errors import HairpinError  # noqa: PLC0415

    if isinstance(error, HairpinError):
        return error
    if isinstance(error, BaseExceptionGroup):
        known = [_hairpin_error(part) for part in error.exceptions]
        if all(known):
            return known[0]
    return None


def _dispatch(arguments: list[str], command_line: list[str]) -> int:
    entry_points = _entry_points()
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        if len(arguments) > 1:
            arguments = [arguments[1], "--help"]
        else:
            sys.stdout.write(_overview(entry_points))
            return 0 if arguments else USAGE_ERROR
    name = arguments[0]
    if name not in entry_points:
        return _unknown(name, list(entry_points))
    command = entry_points[name].load()
    if command_line and not command.takes_command:
        return _usage_error(f"{name} takes no command after --", name)
    parser = _parser(name, command)
    try:
        namespace, extra = command.parse(parser, arguments[1:])
    except _UsageError as error:
        return _usage_error(str(error), error.program)
    if extra:
        return _usage_error(_about_extra(extra, parser, name, takes_command=command.takes_command), name)
    namespace.command = command_line
    return int(command.run(namespace))


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415

    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


class _UsageError(Exception):
    """What argparse would print before it exits."""

    def __init__(self, message: str, program: str) -> None:
        super().__init__(message)
        self.program = program


def _parser(name: str, command: Command) -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415
    import textwrap  # noqa: PLC0415

    class Parser(argparse.ArgumentParser):
        """Raises instead of exiting, and takes no abbreviated flags, which would change their meaning over time."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.setdefault("allow_abbrev", False)
            kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]

        def error(self, message: str) -> object:  # type: ignore[override]
            raise _UsageError(message, self.prog.removeprefix("hairpin "))

    usage = "%(prog)s [flags] -- COMMAND..." if command.takes_command else None
    examples = "".join(f"\n  {example}" for example in command.examples)
    parser = Parser(
        prog=f"hairpin {name}",
        usage=usage,
        description=textwrap.fill(command.description or command.help, 79),
        epilog=f"examples:{examples}" if examples else None,
    )
    command.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _overview(entry_points: dict[str, EntryPoint]) -> str:
    commands = {name: entry_points[name].load() for name in sorted(entry_points)}
    width = max((len(name) for name in commands), default=0)
    listed = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in commands.items())
    examples = "\n".join(f"  {command.examples[0]}" for command in commands.values() if command.examples)
    return (
        "usage: hairpin COMMAND [flags]\n\n"
        "A feature environment's requests, answered by the process on this machine.\n\n"
        f"commands:\n{listed}\n\n"
        f"examples:\n{examples}\n\n"
        "hairpin COMMAND --help tells more of each; hairpin --version says which hairpin this is.\n"
    )


def _unknown(name: str, known: list[str]) -> int:
    if name.startswith("-"):
        return _usage_error(f"{name} is not a flag of hairpin itself: a command comes first", "")
    return _usage_error(f"{name!r} is not a command{_did_you_mean(name, known)}", "")


def _about_extra(extra: list[str], parser: argparse.ArgumentParser, name: str, *, takes_command: bool) -> str:
    flag = next((argument for argument in extra if argument.startswith("-")), None)
    words = [argument for argument in extra if not argument.startswith("-")]
    if takes_command and words and (flag is None or extra.index(words[0]) < extra.index(flag)):
        rest = " ".join(extra)
        return f"{words[0]!r} is not a flag; a command to run comes after --: hairpin {name} … -- {rest}"
    if flag is None:
        return f"{words[0]!r} is one argument too many"
    flags = [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001
    return f"{name} has no flag {flag}{_did_you_mean(flag.split('=')[0], flags)}"


def _did_you_mean(word: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _usage_error(message: str, name: str) -> int:
    where = f"hairpin {name}".rstrip()
    sys.stderr.write(f"hairpin: {message} (see {where} --help)\n")
    return USAGE_ERROR
