"""What `hairpin run` was asked for: its flags, checked before anything is touched."""

from __future__ import annotations

import argparse
import re
import socket
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from hairpin.api import ServerRefusalError
from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.model.match import Match
from hairpin.model.match_text import parse_match
from hairpin.model.session import EgressIdentity, Mode, SessionSpec
from hairpin.model.target import Target
from hairpin.model.version import OURS
from hairpin.ports import free_ports
from local_proxy.control_planes import Connection
from local_proxy.guard import IfKilled
from local_proxy.intercept.choices import Connect, Intercept, UdpPolicy
from local_proxy.rule_flags import rules_in
from local_proxy.rules import Rule
from local_proxy.target.options import TargetOptions, target_options

MAX_PORT = 65535
DEFAULT_LEASE_SECONDS = 10
MAX_LEASE_SECONDS = 3600
_FLAGS = {
    "target": "--target",
    "environment": "--env",
    "match": "--match",
    "mode": "--mode",
    "leaseSeconds": "--lease",
    "identity": "--identity",
}
_FIELD = re.compile(rf"^spec\.({'|'.join(_FLAGS)})[\w.\[\]]*")
_CONNECTION = ("--namespace", "--config", "--kubeconfig", "--context")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LEASE = re.compile(r"(\d+)([smh]?)")
_Choice = TypeVar("_Choice", bound=StrEnum)


class Forwarder(StrEnum):
    """Who forwards ports to the agents' pods, in Kubernetes."""

    HAIRPIN = "hairpin"
    KUBECTL = "kubectl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The flags of `hairpin run`."""

    command: tuple[str, ...] = ()
    """Empty: a process that runs already is served."""
    mode: Mode = Mode.STEAL
    target: Target | None = None
    environment: str | None = None
    match: Match | None = None
    match_text: str = ""
    """The match as it was typed."""
    port: int | None = None
    """None: the first that the command listens on."""
    egress_port: int | None = None
    """None: a free one."""
    lease_seconds: int = DEFAULT_LEASE_SECONDS
    rules: tuple[Rule, ...] = ()
    """Where the command's connections go, as the user says."""
    intercept: Intercept = Intercept.AUTO
    connect: Connect = Connect.AT_ONCE
    udp: UdpPolicy = UdpPolicy.REFUSE
    if_killed: IfKilled = IfKilled.END
    inject_env: bool = False
    """Whether the environment's header is added to the command's requests that lack it."""
    connection: Connection = field(default_factory=Connection)
    identity: EgressIdentity = EgressIdentity.AGENT
    forwarder: Forwarder = Forwarder.HAIRPIN
    quiet: bool = False
    requests: bool = True
    source: str = ""
    """What is told of the hairpin.yaml that took part."""
    from_target: TargetOptions = field(default_factory=TargetOptions)

    def spec(self, certificate_request: str, namespace: str | None = None) -> SessionSpec:
        """What to ask the control plane for.

        Args:
            certificate_request: a CSR.
            namespace: the target's, where none was named.
        """
        target = self.target
        if target is not None and namespace is not None:
            target = replace(target, namespace=namespace)
        return SessionSpec(
            mode=self.mode,
            target=target,
            environment=self.environment,
            match=self.match,
            certificate_request=certificate_request,
            lease_seconds=self.lease_seconds,
            identity=self.identity,
            client=OURS,
        )


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """Check the flags.

    Raises:
        InvalidFieldError: a flag's value can't be used, or two don't go together.
    """
    _check_given(arguments)
    mode = _choice("--mode", arguments.mode, Mode)
    namespace = arguments.namespace or "default"  # else the control plane's, when it is known
    options = RunOptions(
        command=tuple(arguments.command),
        mode=mode,
        target=Target.parse(arguments.target, namespace) if arguments.target is not None else None,
        environment=arguments.env,
        match=parse_match(arguments.match) if arguments.match is not None else None,
        match_text=arguments.match or "",
        port=_port("--port", arguments.port),
        egress_port=_port("--egress-port", arguments.egress_port),
        lease_seconds=_lease(arguments.lease),
        rules=rules_in(arguments),
        intercept=_choice("--intercept", arguments.intercept, Intercept),
        connect=_choice("--connect", arguments.connect, Connect),
        udp=_choice("--udp", arguments.udp, UdpPolicy),
        if_killed=_choice("--if-killed", arguments.if_killed, IfKilled),
        inject_env=arguments.inject_env,
        from_target=target_options(arguments),
        connection=connection_of(arguments),
        identity=_choice("--identity", arguments.identity, EgressIdentity),
        forwarder=_choice("--port-forward", arguments.port_forward, Forwarder),
        quiet=arguments.quiet,
        requests=not arguments.no_requests,
    )
    _check_together(options, arguments)
    return options


def connection_of(arguments: argparse.Namespace) -> Connection:
    """The flags that say which control plane.

    Raises:
        InvalidFieldError: one is empty.
    """
    _check_given(arguments)
    return Connection(
        config=arguments.config,
        kubeconfig=arguments.kubeconfig,
        context=arguments.context,
        namespace=arguments.namespace,
        everywhere=getattr(arguments, "all_namespaces", False),
    )


def in_flags(error: InvalidFieldError | ServerRefusalError) -> HairpinError:
    """What the control plane says of a field of the session, said of the flag that it came from."""

    def flag(found: re.Match[str]) -> str:
        return _FLAGS[found[1]]

    return ServerRefusalError(_FIELD.sub(flag, str(error), count=1))


def _check_given(arguments: argparse.Namespace) -> None:
    # `--match "$MATCH"` with a variable that is not set must not mean all requests of the environment.
    for flag in ("--target", "--env", "--match", *_CONNECTION):
        if getattr(arguments, flag.removeprefix("--"), None) == "":
            raise InvalidFieldError(flag, None, "is empty", "write a value, or leave the flag out")


def _check_together(options: RunOptions, arguments: argparse.Namespace) -> None:
    if options.mode is Mode.EGRESS:
        identity = arguments.identity if options.identity is not EgressIdentity.AGENT else None
        given = {"--target": arguments.target, "--match": arguments.match, "--port": arguments.port}
        for flag, value in {**given, "--identity": identity}.items():
            if value:
                raise InvalidFieldError(
                    flag, value, "has no meaning in mode egress, which takes no requests", "drop it, or --mode egress"
                )
    else:
        _check_steal(options, arguments)
    if options.inject_env and options.environment is None:
        raise InvalidFieldError(
            "--inject-env", None, "has no environment whose header to add", "write --env NAME, or leave it out"
        )
    _check_exact(options)
    if options.egress_port is not None and options.egress_port == options.port:
        raise InvalidFieldError(
            "--egress-port", options.egress_port, "is --port too, which the process listens on", "choose another"
        )


def _check_exact(options: RunOptions) -> None:
    if options.connect is not Connect.EXACT:
        return
    if options.inject_env:
        problem = "does not go with --inject-env, which reads a request before it knows whereto, so after the connect"
        raise InvalidFieldError("--connect", str(options.connect), problem, "leave one of them out")
    if options.intercept is Intercept.OFF:
        problem = "means nothing with --intercept off: connects are the program's own"
        raise InvalidFieldError("--connect", str(options.connect), problem, "leave one of them out")


def _check_steal(options: RunOptions, arguments: argparse.Namespace) -> None:
    if options.target is None:
        raise InvalidFieldError(
            "--target",
            arguments.target,
            "names nothing whose requests to take",
            "write --target NAME or NAME:PORT; --mode egress takes none",
        )
    if options.environment is None and options.match is None:
        raise InvalidFieldError(
            "--env",
            arguments.env,
            "leaves open which requests to take",
            "write --env NAME for a feature environment's, or --match 'header x-user=42'",
        )
    if not options.command and options.port is None:
        raise InvalidFieldError(
            "COMMAND",
            None,
            "is missing",
            "put it after --, as in `-- python app.py`; or name the port of a process that runs already: --port 8080",
        )


def _choice(flag: str, text: str, choices: type[_Choice]) -> _Choice:
    try:
        return choices(text)
    except ValueError:
        raise InvalidFieldError(flag, text, "is no choice", f"choose one of {', '.join(choices)}") from None


def _port(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PORT:
        raise InvalidFieldError(flag, text, "is no port number", f"write a number from 1 to {MAX_PORT}")
    return int(text)


def _lease(text: str | None) -> int:
    if text is None:
        return DEFAULT_LEASE_SECONDS
    found = _LEASE.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= MAX_LEASE_SECONDS:
        remedy = f"write 1 to {MAX_LEASE_SECONDS} seconds, such as 10 or 2m"
        raise InvalidFieldError("--lease", text, "is no time that the requests may stay taken", remedy)
    return seconds


def egress_ports(wanted: int | None) -> tuple[int, int]:
    """The ports of the laptop's HTTP proxy and of the gateway for connections.

    Args:
        wanted: the proxy's, if the user wants a certain one.

    Raises:
        InvalidFieldError: the one that was asked for is taken.
        UnavailableError: none is free.
    """
    free = free_ports()
    proxy = next(free) if wanted is None else _listenable(wanted)
    return proxy, next(port for port in free if port != proxy)


def _listenable(wanted: int) -> int:
    with socket.socket() as probe:
        # As Envoy will bind it: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            remedy = "choose another, or leave the flag out for a free one"
            problem = f"can't be listened on ({error.strerror})"
            raise InvalidFieldError("--egress-port", wanted, problem, remedy) from error
    return wanted
