"""The programs that a developer may run, and the words in which each says that a connection was refused or a name is unknown."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.laptop import builds

CURL = ("curl", "--silent", "--show-error", "--max-time", "20", "--cacert", "{ca}", "{to}")
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", "{folder}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program. In `argv` and `environment`, {to} is a URL or HOST:PORT, {ca} a file, {folder} where it was built."""

    name: str
    argv: tuple[str, ...]
    refused: str
    """A regular expression: what it prints when a connection is refused."""
    unknown: str
    """Likewise when there is no such name."""
    part: str = ""
    """Of tests.laptop.builds; empty for what the system brings."""
    environment: dict[str, str] = field(default_factory=dict)
    grpc: bool = False

    def __str__(self) -> str:
        return self.name

    def case(
        self, key: str, to: str, ca: Path | str, *, root: Path | None = None, python: str = sys.executable
    ) -> dict:
        """For the driver: how to run it.

        Args:
            key: by which the result is found.
            to: what to ask.
            ca: the authority's file.
            root: where `builds.cache()` is seen by the program, if elsewhere than here.
            python: the interpreter there.

        Raises:
            MissingError: it can't be built here.
        """
        folder = builds.part(self.part) if self.part else Path()
        places = {"to": to, "ca": str(ca), "python": python, "folder": str((root or folder.parent) / folder.name)}
        return {
            "key": key,
            "argv": [word.format(**places) for word in self.argv],
            "environment": {name: value.format(**places) for name, value in self.environment.items()},
        }


def _python(module: str) -> dict:
    return {
        "part": "python",
        "argv": ("{python}", f"{{folder}}/{module}.py", "{to}", "{ca}"),
        "environment": {"PYTHONPATH": "{folder}/site-packages"},
    }


def _node(module: str) -> dict:
    return {
        "part": "node",
        "argv": ("node", f"{{folder}}/{module}.js", "{to}", "{ca}"),
        "environment": {"NODE_EXTRA_CA_CERTS": "{ca}"},
    }


def _musl(version: str, way: str = "plain") -> Program:
    """Static; what each way is says its source."""
    return Program(
        name=version if way == "plain" else f"{version}-{way}",
        part="musl",
        argv=(f"{{folder}}/{version.replace('musl', 'fetch')}", "{to}", "{ca}", way),
        refused=r"error connect: Connection refused",
        unknown=r"error getaddrinfo: Name does not resolve",
    )


PROGRAMS = (
    Program(
        name="curl",
        argv=CURL,
        refused=r"curl: \(7\) Failed to connect to \S+ port \d+ .*: Couldn't connect to server",
        unknown=r"curl: \(6\) Could not resolve host: \S+",
    ),
    Program(
        name="python-requests",
        **_python("by_requests"),
        refused=r"NewConnectionError.*ConnectionRefusedError: \[Errno 111\] Connection refused",
        unknown=r"NameResolutionError.*gaierror: \[Errno -[25]\] ",
    ),
    Program(
        name="python-httpx",
        **_python("by_httpx"),
        refused=r"ConnectError: All connection attempts failed.*\[Errno 111\] Connect",
        unknown=r"ConnectError: \[Errno -[25]\] .*gaierror",
    ),
    Program(
        name="python-grpcio",
        grpc=True,
        **_python("by_grpcio"),
        refused=r"StatusCode\.UNAVAILABLE.*[Cc]onnection refused",
        unknown=r"StatusCode\.UNAVAILABLE.*(DNS resolution failed|Domain name not found|C-ares)",
    ),
    Program(
        name="node-fetch",
        **_node("fetch"),
        refused=r"error TypeError fetch failed; by ECONNREFUSED ",
        unknown=r"error TypeError fetch failed; by ENOTFOUND getaddrinfo ENOTFOUND ",
    ),
    Program(
        name="node-http",
        **_node("http"),
        refused=r"error ECONNREFUSED ",
        unknown=r"error ENOTFOUND getaddrinfo ENOTFOUND ",
    ),
    Program(
        name="node-grpc",
        grpc=True,
        **_node("grpc"),
        refused=r"error 14 .*UNAVAILABLE: No connection established\. Last error: .*ECONNREFUSED",
        unknown=r"error 14 .*UNAVAILABLE: Name resolution failed for target dns:",
    ),
    Program(
        name="go-http",
        part="go",
        argv=("{folder}/http", "{to}", "{ca}"),
        refused=r"dial tcp \S+: connect: connection refused",
        unknown=r"dial tcp: lookup \S+( on \S+)?: no such host",
    ),
    Program(
        name="go-grpc",
        part="go",
        grpc=True,
        argv=("{folder}/grpc", "{to}", "{ca}"),
        refused=r"code = Unavailable .*connect: connection refused",
        unknown=r"code = Unavailable .*(produced zero addresses|no such host)",
    ),
    Program(
        name="java-httpclient",
        part="java",
        argv=(*JAVA, "ByHttpClient", "{to}", "{ca}"),
        refused=r"java\.net\.ConnectException(?!.*UnresolvedAddress)",
        unknown=r"java\.net\.ConnectException.*java\.nio\.channels\.UnresolvedAddressException",
    ),
    Program(
        name="java-httpurlconnection",
        part="java",
        argv=(*JAVA, "ByUrlConnection", "{to}", "{ca}"),
        refused=r"java\.net\.ConnectException: Connection refused",
        unknown=r"java\.net\.UnknownHostException: ",
    ),
    Program(
        name="rust-reqwest",
        part="rust",
        argv=("{folder}/fetch", "{to}", "{ca}"),
        refused=r"tcp connect error: Connection refused \(os error 111\)",
        unknown=r"dns error: .*failed to lookup address information: Name or service not known",
    ),
    _musl("musl-1.2.3"),  # Debian's, whose resolver is of before TCP fallback
    _musl("musl-1.2.5"),
    _musl("musl-1.2.5", "thread"),
    _musl("musl-1.2.5", "six"),
)
