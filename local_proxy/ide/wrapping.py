"""Whether an IDE starts the program that is developed, or looks at its tools: pure, from the command line alone.

An IDE runs an interpreter many times before it runs the program: for its version, its paths, its packages, a debugger's
adapter. Only what becomes the program itself is run in the mesh. What is not understood is not: an IDE that can't find out
an interpreter's version is of no use, a program that runs without the mesh is noticed at once.

The shim imports this module before anything else happens, so it imports nothing (`re` takes longer than the rest of a shim).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PYTHON_TOOLS = _words(
    "autopep8 bandit black build compileall coverage debugpy.adapter easy_install ensurepip flake8 hairpin hatch ipykernel "
    "ipykernel_launcher IPython ipython isort jedi jedi_language_server json json.tool jupyter mypy nose2 nox pdm pip "
    "pip3 pipenv poetry pre_commit py_compile pycodestyle pydoc pydocstyle pyflakes pylint pylsp pyright pytest py.test "
    "ruff setup setuptools site sysconfig tests timeit tox twine unittest uv venv virtualenv wheel yapf"
)
"""Modules and scripts that are tools: tests, too, which are to run in the mesh only where one says so."""
_PYTHON_VALUES = ("-W", "-X", "--check-hash-based-pycs")
_NODE_TOOLS = _words(
    "corepack eslint jest mocha node-gyp npm npm-cli npx npx-cli pnpm pnpx prettier tsc tsserver vitest yarn yarnpkg"
)
_NODE_VALUES = _words(
    "-r --require --import --loader --experimental-loader -C --conditions --env-file --env-file-if-exists --input-type "
    "--icu-data-dir --openssl-config --redirect-warnings --diagnostic-dir --trace-event-categories --title "
    "--disable-warning --watch-path --unhandled-rejections --dns-result-order --max-http-header-size"
)
_NODE_ASKS = _words(
    "-v --version -h --help -e --eval -p --print -pe -c --check -i --interactive --v8-options --test - inspect"
)
_JAVA_VALUES = _words(
    "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules --limit-modules --add-exports "
    "--add-opens --add-reads --patch-module --enable-native-access --source"
)
_JAVA_ASKS = _words(
    "-version --version -fullversion --full-version -help --help -h -? -X --help-extra --list-modules "
    "-d --describe-module --dry-run --validate-modules"
)
_JAVA_TOOLS = tuple(
    _words(
        "com.intellij. com.microsoft.java. com.sun.tools. jdk. org.apache.maven. org.codehaus.classworlds. "
        "org.codehaus.plexus. org.eclipse.equinox. org.eclipse.jdt. org.gradle. org.jetbrains.idea. org.jetbrains.jps. "
        "org.jetbrains.kotlin. org.junit. org.scalatest. org.testng. sbt. sun.tools. worker.org.gradle. xsbt."
    )
)
_JAVA_TOOL_JARS = tuple(
    _words("gradle- idea_rt junit-platform- kotlin-compiler maven- org.eclipse. plexus- sbt-launch surefire")
)
_JAVA_STARTERS = ("com.intellij.rt.execution.application.AppMain", "com.intellij.rt.execution.CommandLineWrapper")
"""They start the main class that follows."""
_DEBUGPY_VALUES = ("--listen", "--connect", "--log-to", "--adapter-access-token", "--parent-session-pid")
_DEBUGPY_ASKS = ("--pid", "-c", "--version", "-V", "-h", "-?", "--help")
_DELVE_RUNS = _words("dap debug exec")
_DELVE_VALUES = _words(
    "-l --listen --api-version --backend --build-flags --log-dest --log-output --init --wd -r --redirect --tty "
    "--client-addr --output"
)
_ASKS_HELP = _words("-h --help")


def runs_program(kind: str, arguments: Sequence[str], read: Callable[[str], str] = lambda _: "") -> bool:
    """Whether a call of an interpreter or a debugger is one that runs the developer's program.

    Args:
        kind: python, node, java, dlv or go.
        arguments: what follows the program's name.
        read: gives a file's text, or nothing; for Java's argument files.
    """
    match kind:
        case "python":
            return _python(arguments)
        case "node":
            return _node(arguments)
        case "java":
            return _java(list(_expanded(arguments, read)))
        case "dlv":
            return _delve(arguments)
        case "go":
            return arguments[:1] == ["run"] and not _ASKS_HELP & set(arguments[1:2])
    return False


def _python(arguments: Sequence[str]) -> bool:
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word in _PYTHON_VALUES:
            index += 2
        elif word.startswith("--"):
            if word not in ("--", "--check-hash-based-pycs") and not word.startswith("--check-hash"):
                return False  # --version, --help and its like
            index += 1
        elif word.startswith("-") and len(word) > 1:
            # Letters in one word; the first that takes a value takes the rest, or the next word.
            letters = word[1:]
            place = next((i for i, letter in enumerate(letters) if letter in "cmWXVh?"), None)
            letter = letters[place] if place is not None else ""
            rest = letters[place + 1 :] if place is not None else ""
            if letter == "m":
                module, *following = [rest, *arguments[index + 1 :]] if rest else [*arguments[index + 1 :], ""]
                return _python_module(module, following)
            if letter and letter not in "WX":
                return False
            index += 1 if rest or not letter else 2
        else:
            return word != "-" and _python_script(word, arguments[index + 1 :])
    return False


def _python_module(module: str, following: Sequence[str]) -> bool:
    if module == "debugpy":
        return _debugpy(following)
    return bool(module) and module not in _PYTHON_TOOLS and module.partition(".")[0] not in _PYTHON_TOOLS


def _python_script(script: str, following: Sequence[str]) -> bool:
    parts = script.replace("\\", "/").rstrip("/").split("/")
    name = parts[-1]
    if name == "__main__.py" and len(parts) > 1:
        parts, name = parts[:-1], parts[-2]
    if parts[-2:-1] == ["debugpy"] and name in ("adapter", "launcher"):
        return False  # the launcher starts its program by this interpreter again
    if name == "debugpy":
        return _debugpy(following)
    if name == "pydevd.py":
        return _pydevd(following)
    return not _is_an_ides(parts) and name.removesuffix(".py") not in _PYTHON_TOOLS


def _is_an_ides(parts: Sequence[str]) -> bool:
    """Whether a script is one that an IDE brings: VS Code's extensions, JetBrains' helpers."""
    folders = [part.lower() for part in parts[:-1]]
    if any(folder.startswith(("ms-python.", "ms-toolsai.", "ms-vscode.")) for folder in folders):
        return True
    if "helpers" not in folders:
        return False
    above = folders[: folders.index("helpers")][-2:]
    return any(folder.startswith(("pycharm", "python", "intellij", "idea")) for folder in above) and (
        "plugins" in above or any(folder.startswith(("pycharm", "intellij", "idea")) for folder in above)
    )


def _debugpy(arguments: Sequence[str]) -> bool:
    """Of debugpy's own command line: the program that it starts."""
    words = iter(enumerate(arguments))
    for index, word in words:
        if word in _DEBUGPY_VALUES or word.startswith("--configure-"):
            next(words, None)
        elif word in _DEBUGPY_ASKS:
            return False
        elif word == "-m":
            return _python_module(*_first(arguments[index + 1 :]))
        elif not word.startswith("-"):
            return _python_script(word, arguments[index + 1 :])
    return False


def _pydevd(arguments: Sequence[str]) -> bool:
    """Of pydevd's own command line: what follows --file, which comes last."""
    if "--file" not in arguments:
        return False
    place = list(arguments).index("--file")
    following = _first(arguments[place + 1 :])
    if "--module" in arguments[:place]:
        return _python_module(*following)
    return bool(following[0]) and _python_script(*following)


def _first(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    return (words[0], words[1:]) if words else ("", ())


def _node(arguments: Sequence[str]) -> bool:
    words = iter(arguments)
    for word in words:
        name, given, _ = word.partition("=")
        if name in _NODE_ASKS:
            return False
        if name == "--run":
            return True
        if name in _NODE_VALUES and not given:
            next(words, None)
        elif word == "--":
            return _node_script(next(words, ""))
        elif not word.startswith("-"):
            return _node_script(word)
    return False


def _node_script(script: str) -> bool:
    parts = script.replace("\\", "/").split("/")
    name = parts[-1]
    for end in (".js", ".cjs", ".mjs"):
        name = name.removesuffix(end)
    an_ides = any(
        folder in ("extensions", "plugins") and parts[place - 1].startswith((".vscode", "javascript"))
        for place, folder in enumerate(parts)
        if place
    )
    return bool(script) and name not in _NODE_TOOLS and not an_ides


def _expanded(arguments: Sequence[str], read: Callable[[str], str]) -> Iterator[str]:
    """The words with those of argument files (`@file`, before the main class) in their place, quotes taken off."""
    for word in arguments:
        if word.startswith("@") and not word.startswith("@@"):
            yield from _quoted_words(read(word[1:]))
        else:
            yield word


def _quoted_words(text: str) -> Iterator[str]:
    """The words of an argument file, as java(1) says: quotes, comments, and backslashes inside quotes."""
    for line in text.splitlines():
        word: str | None = None
        quote, escaped = "", False
        for character in line:
            if escaped:
                word, escaped = (word or "") + character, False
            elif quote and character == "\\":
                escaped = True
            elif quote and character == quote:
                quote = ""
            elif not quote and character in "\"'":
                word, quote = word or "", character
            elif not quote and character == "#" and word is None:
                break
            elif not quote and character.isspace():
                yield from () if word is None else (word,)
                word = None
            else:
                word = (word or "") + character
        yield from () if word is None else (word,)


def _java(arguments: Sequence[str]) -> bool:
    words = iter(arguments)
    for word in words:
        name, given, value = word.partition("=")
        if word in _JAVA_ASKS:
            return False
        if word == "-jar":
            return _java_jar(next(words, ""))
        if name in ("-m", "--module"):
            return _java_main((value if given else next(words, "")).partition("/")[0], words)
        if word in _JAVA_VALUES:
            next(words, None)
        elif not word.startswith("-"):
            return _java_main(word, words)
    return False


def _java_jar(jar: str) -> bool:
    name = jar.replace("\\", "/").rpartition("/")[2]
    return bool(name) and not name.startswith(_JAVA_TOOL_JARS)


def _java_main(main: str, following: Iterator[str]) -> bool:
    if main.startswith(_JAVA_STARTERS):
        if main.endswith("CommandLineWrapper"):
            next(following, None)  # the file with the class path
        main = next(following, "")
    return bool(main) and not main.startswith(_JAVA_TOOLS)


def _delve(arguments: Sequence[str]) -> bool:
    """The first word that is no flag is the subcommand; GoLand writes flags before it."""
    words = iter(arguments)
    for word in words:
        if word in _ASKS_HELP or word == "--":
            return False
        if word in _DELVE_VALUES:
            next(words, None)
        elif not word.startswith("-"):
            rest = list(words)
            own = rest[: rest.index("--")] if "--" in rest else rest
            return word in _DELVE_RUNS and not _ASKS_HELP & set(own)
    return False
