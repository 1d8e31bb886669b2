"""The ports that a process's debugger listens on, as its command line and environment tell.

They must not be taken for the service's: requests sent to one would stop the debugger, not reach the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

ALL_PORTS = frozenset(range(1, 65536))
"""For a process that is nothing but a debugger."""

# debugpy's adapter and its like are processes of their own. It also comes as VS Code's bundled copy. What the adapter
# starts has its folder on the way to its own: `…/debugpy/adapter/../../debugpy --connect … program.py` is the program.
_PURE_DEBUGGERS = re.compile(
    r"debugpy[/\\.]adapter(?:[/\\]__main__\.py)?(?=\s|$)|(^|[/\\])(gdbserver|lldb-server|debugserver|dlv-dap)(\s|$)"
)
_NODE_INSPECTOR = 9229
_NODE = re.compile(r"--(?:inspect(?:-brk|-wait|-port)?|debug-port)(?:=(?:(?:\[[^\]]*\]|[^\s:]*):)?(\d+))?(?=\s|$)")
_JDWP = re.compile(r"(?:-agentlib:|-Xrun)jdwp[=:](\S+)")
_JDWP_ADDRESS = re.compile(r"(?:^|,)address=(?:\S*?:)?(\d+)(?:,|$)")
_JMX = re.compile(r"-Dcom\.sun\.management\.jmxremote(?:\.rmi)?\.port=(\d+)")
_DEBUGPY = re.compile(r"debugpy\S*\s(?:.*\s)?--listen[= ](?:\S*:)?(\d+)")
_DELVE = re.compile(r"(?:^|[/\\])dlv\s.*--listen[= ]\S*:(\d+)|(?:^|[/\\])dlv\s.*-l[= ]\S*:(\d+)")
_RDBG = re.compile(r"(?:^|[/\\ ])rdbg\s(?:.*\s)?--port[= ](\d+)")
_PYDEVD = re.compile(r"pydevd\S*\s(?:.*\s)?--port[= ](\d+)")
_FROM_COMMAND_LINE = (_JMX, _DEBUGPY, _DELVE, _RDBG, _PYDEVD)


def debugger_ports(command_line: Sequence[str], environment: Mapping[str, str] | None = None) -> frozenset[int]:
    """The ports that belong to a debugger, in a process that was started like this.

    A debugger that the program starts by itself on a port of its choice (`debugpy.listen`) runs in a process of its
    own, which is known by its command line. A random port of Node's inspector is not told: see `has_random_inspector`.
    """
    line = " ".join(command_line)
    if _PURE_DEBUGGERS.search(line):
        return ALL_PORTS
    environment = environment or {}
    ports = {int(port) for pattern in _FROM_COMMAND_LINE for port in _groups(pattern, line)}
    for options in (line, environment.get("NODE_OPTIONS", "")):
        ports |= {int(port or _NODE_INSPECTOR) for port in _NODE.findall(options)}
    for options in (line, environment.get("JAVA_TOOL_OPTIONS", ""), environment.get("JDK_JAVA_OPTIONS", "")):
        for settings in _JDWP.findall(options):
            if "server=y" in settings:
                ports |= {int(port) for port in _JDWP_ADDRESS.findall(settings)}
    if environment.get("RUBY_DEBUG_PORT", "").isdigit():
        ports.add(int(environment["RUBY_DEBUG_PORT"]))
    return frozenset(ports)


def has_random_inspector(command_line: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether Node's inspector is on a port that it chose by itself: `--inspect=0`, or VS Code's debugger opened it."""
    if environment.get("VSCODE_INSPECTOR_OPTIONS"):
        return True
    return any(
        "0" in _NODE.findall(options) for options in (" ".join(command_line), environment.get("NODE_OPTIONS", ""))
    )


def _groups(pattern: re.Pattern[str], text: str) -> list[str]:
    return [group for found in pattern.finditer(text) for group in found.groups() if group]
