"""The variables by which a kubelet tells containers of Services (k8s.io/kubernetes/pkg/kubelet/envvars)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

API_SERVER = {"KUBERNETES_SERVICE_HOST": "kubernetes.default.svc", "KUBERNETES_SERVICE_PORT": "443"}
"""Where the Service `default/kubernetes` may not be read: its name instead of its address; clients take either."""


def link_variables(services: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Variables of Services that have an address; headless ones have none."""
    variables: dict[str, str] = {}
    for service in services:
        spec = service.get("spec") or {}
        address, ports = spec.get("clusterIP") or "", spec.get("ports") or []
        if address and address != "None" and ports:
            variables |= _of(_upper(service["metadata"]["name"]), address, ports)
    return variables


def _of(prefix: str, address: str, ports: list[Mapping[str, Any]]) -> dict[str, str]:
    variables = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    host = f"[{address}]" if ":" in address else address
    for port in ports:
        if port.get("name"):
            variables[f"{prefix}_SERVICE_PORT_{_upper(port['name'])}"] = str(port["port"])
    for number, port in enumerate(ports):
        protocol = str(port.get("protocol") or "TCP")
        url = f"{protocol.lower()}://{host}:{port['port']}"
        if number == 0:
            variables[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        variables |= {
            link: url,
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": str(port["port"]),
            f"{link}_ADDR": address,
        }
    return variables


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
