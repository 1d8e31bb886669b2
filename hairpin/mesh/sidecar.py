"""A sidecar's bootstrap: who it is, its certificate, and the control plane it gets everything else from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hairpin.envoy import config

if TYPE_CHECKING:
    from hairpin.envoy.config import Config, Identity
    from hairpin.model.mesh import Mesh

XDS_SERVER_NAME = "xds-server"
"""The DNS SAN of the control plane's certificate."""


def sidecar_bootstrap(
    mesh: Mesh, name: str, identity: Identity, control_plane: Identity, *, kind: str = "sidecar", delta: bool = True
) -> Config:
    """The bootstrap of one proxy of the mesh.

    Args:
        mesh: the mesh.
        name: the workload's or the replica's name: the proxy's node id says `KIND~NAME.NAMESPACE`.
        identity: where its certificate of the mesh lies. The resources that it is sent name it `default` and `ROOTCA`,
            as Istio's do.
        control_plane: the same, with what it trusts at the control plane.
        kind: `sidecar` or `entry`.
        delta: whether it speaks the delta variant of xDS, as Istio's proxies do.
    """
    files = {"filename": str(identity.certificate)}
    secrets = [
        {"name": "default", "tls_certificate": {"certificate_chain": files, "private_key": files}},
        {"name": "ROOTCA", "validation_context": {"trusted_ca": {"filename": str(identity.authority)}}},
    ]
    address = mesh.control_plane.xds
    server = config.san("DNS", XDS_SERVER_NAME)
    cluster = config.ads_cluster("xds-grpc", config.tcp(address.host, address.port), control_plane, server)
    return {
        "node": {"id": f"{kind}~{name}.{mesh.namespace}", "cluster": f"{name}.{mesh.namespace}"},
        "bootstrap_extensions": [
            config.typed(
                "envoy.bootstrap.internal_listener", "extensions.bootstrap.internal_listener.v3.InternalListener"
            )
        ],
        "dynamic_resources": {
            "ads_config": config.ads("xds-grpc", delta=delta),
            "lds_config": {**config.ADS, "initial_fetch_timeout": "0s"},
            "cds_config": {**config.ADS, "initial_fetch_timeout": "0s"},
        },
        "static_resources": {"clusters": [cluster], "secrets": secrets},
        "layered_runtime": config.ISTIO_RUNTIME,
    }
