"""The variables that send a command's HTTP requests through the laptop's Envoy, and so through the mesh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SESSION_VARIABLE = "HAIRPIN_SESSION"
"""Names the session to the command, and marks its processes for us."""

ENVIRONMENT_VARIABLE = "HAIRPIN_ENV"
"""Names the feature environment to the command, where there is one."""

ALWAYS_LOCAL = ("localhost", "127.0.0.1", "::1")
"""Hosts that never go through the mesh."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_EXCEPTIONS = ("no_proxy", "no_grpc_proxy")


@dataclass(frozen=True, slots=True)
class CommandEnvironment:
    """A command's environment, and what the user should know of it."""

    variables: dict[str, str]
    notes: tuple[str, ...] = ()


def command_environment(
    inherited: Mapping[str, str],
    *,
    egress_port: int,
    session: str,
    environment: str | None = None,
    local_hosts: Iterable[str] = (),
) -> CommandEnvironment:
    """What the command is started with.

    The user's own proxy variables are replaced: requests for the mesh would not arrive through another proxy. Their
    exceptions go too, since a company's usual ones (`10.0.0.0/8`, `.svc`) would keep the mesh's names away from it.

    Args:
        inherited: our own environment.
        egress_port: where the laptop's Envoy takes CONNECT and absolute-form requests, on 127.0.0.1.
        session: the session's name.
        environment: the feature environment's name.
        local_hosts: hosts that the user wants reached directly, beside this machine itself.
    """
    proxy = f"http://127.0.0.1:{egress_port}"
    local = ",".join(dict.fromkeys((*ALWAYS_LOCAL, *local_hosts)))
    variables = dict(inherited)
    variables |= _both_cases(dict.fromkeys(_PROXIES, proxy) | dict.fromkeys(_EXCEPTIONS, local))
    # Node.js heeds the variables above only when this one is set (nodejs.org/api/cli.html#node_use_env_proxy1).
    variables.setdefault("NODE_USE_ENV_PROXY", "1")
    variables[SESSION_VARIABLE] = session
    if environment:
        variables[ENVIRONMENT_VARIABLE] = environment
    return CommandEnvironment(variables, _notes(inherited, variables))


def intercepted_environment(
    inherited: Mapping[str, str], *, session: str, environment: str | None = None
) -> CommandEnvironment:
    """What a command is started with whose connections are intercepted.

    The user's proxy variables go: the pod has none, and a company's proxy knows no name of the mesh.

    Args:
        inherited: our own environment.
        session: the session's name.
        environment: the feature environment's name.
    """
    proxies = _both_cases(dict.fromkeys(_PROXIES, ""))
    variables = {name: value for name, value in inherited.items() if name not in proxies}
    variables[SESSION_VARIABLE] = session
    if environment:
        variables[ENVIRONMENT_VARIABLE] = environment
    return CommandEnvironment(variables, _notes(inherited, variables))


def _both_cases(variables: Mapping[str, str]) -> dict[str, str]:
    # Programs differ in which they read: curl takes http_proxy in lower case only, others upper case first.
    return {name: value for key, value in variables.items() for name in (key, key.upper())}


def _notes(inherited: Mapping[str, str], variables: Mapping[str, str]) -> tuple[str, ...]:
    notes = []
    replaced = [name for name in _both_cases(dict.fromkeys(_PROXIES, "")) if _differs(name, inherited, variables)]
    if replaced:
        values = ", ".join(f"{name}={_without_password(inherited[name])}" for name in replaced)
        notes.append(f"your proxy settings don't apply to the command, its requests go through the mesh: {values}")
    dropped = [name for name in _both_cases(dict.fromkeys(_EXCEPTIONS, "")) if _differs(name, inherited, variables)]
    if dropped:
        name = dropped[0]
        notes.append(f"{name}={inherited[name]} is set aside too; --local HOST keeps a host out of the mesh")
    return tuple(notes)


def _differs(name: str, inherited: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    return bool(inherited.get(name)) and inherited[name] != variables.get(name)


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
