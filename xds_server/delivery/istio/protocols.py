"""What Istio takes a Service's port for: only requests of HTTP can be steered. Pure."""

from __future__ import annotations

from enum import Enum, auto

from xds_server.model.cluster import ServicePortFacts


class Protocol(Enum):
    """How a sidecar reads a port's bytes."""

    HTTP = auto()
    OTHER = auto()
    DETECTED = auto()
    """By the first bytes of each connection: nothing was declared."""


# As in Istio's pkg/config/protocol and pkg/config/kube/conversion.go.
_HTTP = {"grpc", "grpc-web", "http", "http_proxy", "http2"}
_OTHER = {"tcp", "udp", "https", "tls", "mongo", "redis", "mysql"}
_KUBERNETES = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
_WELL_KNOWN = {25, 53, 3306, 27017}
"""Taken for TCP when nothing is declared: their servers speak first."""


def protocol_of(port: ServicePortFacts) -> Protocol:
    """What the port's `appProtocol` declares, else the beginning of its name."""
    declared = (port.app_protocol or port.name).lower()
    declared = _KUBERNETES.get(declared, declared)
    word = "grpc-web" if declared.startswith("grpc-web") else declared.partition("-")[0]
    if word in _HTTP:
        return Protocol.HTTP
    if word in _OTHER or port.number in _WELL_KNOWN:
        return Protocol.OTHER
    return Protocol.DETECTED
