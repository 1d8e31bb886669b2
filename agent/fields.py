"""Fields of the agent's settings that have a form of their own; what does not have it is an InvalidFieldError."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from hairpin.errors import InvalidFieldError
from hairpin.model.mesh import SocketAddress
from hairpin.model.names import PATH, is_address
from hairpin.model.reader import Reader

_LAST_PORT = 65535


def text(reader: Reader, field: str, variables: Mapping[str, str]) -> str:
    """A text as it stands, or `{env: NAME}`."""
    value = reader.take(field)
    if not isinstance(value, dict):
        return reader.text(field)
    inner = Reader(value, reader.path(field))
    name = inner.text("env")
    inner.finish()
    if not variables.get(name):
        remedy = "set it in the pod's env, by valueFrom.fieldRef"
        raise InvalidFieldError(inner.path("env"), name, "is not set in the environment", remedy)
    return variables[name]


def socket_address(reader: Reader, field: str, *, names: bool = False) -> SocketAddress:
    """`IP:PORT`, or `HOST:PORT` where names are taken too."""
    value = reader.text(field)
    host, _, port = value.rpartition(":")
    host = host.strip("[]")
    port_number = int(port) if re.fullmatch("[0-9]{1,5}", port) else 0
    if not (is_address(host) or (names and is_name(host))) or not 0 < port_number <= _LAST_PORT:
        form, example = (
            ("HOST:PORT", "hairpin-controller.hairpin-system.svc:9101") if names else ("IP:PORT", "127.0.0.1:9202")
        )
        raise InvalidFieldError(reader.path(field), value, f"is not {form}", f"write it like {example}")
    return SocketAddress(host, port_number)


def is_name(value: str) -> bool:
    """Whether it can be a host's name: 127.1 is none."""
    return (
        len(value) <= PATH.most and bool(re.fullmatch(PATH.pattern, value)) and not value.rpartition(".")[2].isdecimal()
    )


def https_url(reader: Reader, field: str) -> str:
    """A URL of https, without a slash at its end."""
    value = reader.text(field)
    if not value.startswith("https://"):
        raise InvalidFieldError(reader.path(field), value, "is not https", "write it like https://127.0.0.1:9100")
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidFieldError(reader.path(field), value, "is no URL", "write it like https://127.0.0.1:9100")
    return value.rstrip("/")


def networks(reader: Reader, field: str) -> list[str]:
    """A list of networks, each as it stands."""
    found = reader.texts(field, [])
    for index, network in enumerate(found):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            where = f"{reader.path(field)}[{index}]"
            raise InvalidFieldError(where, network, "is no network", "write it like 10.0.0.0/8") from None
    return found


def number(reader: Reader, field: str, default: float, least: float, most: float) -> float:
    """A number within bounds, both included."""
    value = reader.take(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidFieldError(reader.path(field), value, "is out of range", f"use a number from {least} to {most}")
    return float(value)
