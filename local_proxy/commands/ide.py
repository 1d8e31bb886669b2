"""`hairpin ide`: run configurations for IDEs. The command line of it."""

from __future__ import annotations

import argparse

from hairpin.cli import Command

_WHAT = {
    "vscode": "write .vscode/launch.json, and what Go needs in settings.json",
    "intellij": "write .run/*.run.xml, for IntelliJ IDEA, PyCharm, WebStorm and GoLand",
    "explain": "write the interpreters alone, and tell what to set in any IDE",
}


class Ide(Command):
    """Have an IDE start programs in a session."""

    help = "write your IDE's run configurations, so that its debugger starts the service in a session"
    description = (
        "Writes a configuration for each service of hairpin.yaml and each of its languages, and the interpreters in "
        ".hairpin that the IDE starts. What else is in the IDE's files stays as it is; a second run changes nothing."
    )
    examples = (
        "hairpin ide vscode",
        "hairpin ide vscode checkout --language python",
        "hairpin ide intellij",
        "hairpin ide explain",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The IDEs, and what they have in common."""
        ides = parser.add_subparsers(dest="ide", required=True, metavar="IDE")
        for name, text in _WHAT.items():
            ide = ides.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
            ide.add_argument("service", nargs="?", metavar="SERVICE", help="one service of hairpin.yaml (default: all)")
            ide.add_argument(
                "--language",
                action="append",
                default=[],
                metavar="python|node|go|java",
                help="the program's language, if neither its command nor its folder tells; may be given several times",
            )
            ide.add_argument("--file", metavar="FILE", help="the hairpin.yaml (default: the nearest, here or above)")

    def run(self, arguments: argparse.Namespace) -> int:
        """Write."""
        import os  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        from local_proxy.ide import explain, write  # noqa: PLC0415
        from local_proxy.ide.launches import languages_named, plan  # noqa: PLC0415

        found = plan(Path.cwd(), arguments.file, arguments.service, languages_named(arguments.language), os.environ)
        commands = {"vscode": write.write_vscode, "intellij": write.write_intellij, "explain": explain.explain}
        return commands[arguments.ide](found)


command = Ide()
