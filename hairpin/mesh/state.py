"""A mesh's folder: what its processes read, written anew each time the mesh comes up. Readable by its user alone.

mesh.json                  the mesh with every address
certificates/mesh/         the mesh's CA (stands for istiod's)
certificates/hairpin/      hairpin's CA
identities/NAME/           a sidecar's certificate of the mesh
xds-server.yaml            the control plane's settings
agents/NAME.yaml, .token   an agent's settings and its service account's token
developers/USER.yaml       what `hairpin run` reads
logs/NAME.log              what a program wrote
run/NAME/                  Envoys' own folders
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hairpin.api import Developer, state_directory, write_developer
from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.envoy.config import Identity, write_identity
from hairpin.errors import UnavailableError
from hairpin.files import write_private
from hairpin.mesh.mesh_file import mesh_to_document
from hairpin.model.mesh import AGENT, ENTRY
from hairpin.tokens import token_hash

if TYPE_CHECKING:
    from hairpin.model.mesh import AgentReplica, Mesh

MESH_CERTIFICATE_LIFETIME = timedelta(days=30)
"""Of the sidecars' certificates: longer than a laptop goes without a restart of the mesh."""


def default_folder() -> Path:
    """Where a mesh keeps its files unless told otherwise."""
    return state_directory() / "mesh"


@dataclass(frozen=True, slots=True)
class MeshFolder:
    """Paths in the folder."""

    root: Path

    @property
    def mesh(self) -> Path:
        """The mesh with every address."""
        return self.root / "mesh.json"

    @property
    def settings(self) -> Path:
        """The control plane's settings."""
        return self.root / "xds-server.yaml"

    @property
    def mesh_authority(self) -> Path:
        """The mesh's CA."""
        return self.root / "certificates" / "mesh"

    @property
    def authority(self) -> Path:
        """hairpin's CA."""
        return self.root / "certificates" / "hairpin"

    def identity(self, name: str) -> Identity:
        """A sidecar's certificate, and what it trusts at other sidecars."""
        return Identity(self.root / "identities" / name)

    def control_plane_identity(self, name: str) -> Identity:
        """The same certificate, and what it trusts at the control plane."""
        return Identity(self.root / "identities" / name / "control-plane")

    def agent(self, name: str) -> Path:
        """An agent's settings."""
        return self.root / "agents" / f"{name}.yaml"

    def developer(self, user: str) -> Path:
        """A developer's file."""
        return self.root / "developers" / f"{user}.yaml"

    def log(self, name: str) -> Path:
        """A program's output."""
        return self.root / "logs" / f"{name}.log"

    def run(self, name: str) -> Path:
        """An Envoy's own folder."""
        return self.root / "run" / name

    def lock(self) -> int:
        """Take the folder for this process: a descriptor that holds the lock until it is closed.

        Raises:
            UnavailableError: another mesh runs from this folder.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UnavailableError(
                f"a mesh runs from {self.root} already: end it, or give this one its own folder with --state"
            ) from None
        return descriptor


def write_folder(folder: MeshFolder, mesh: Mesh) -> None:
    """Write everything that the mesh's processes read. What an earlier mesh left there goes."""
    for name in ("certificates", "identities", "agents", "developers", "run"):
        shutil.rmtree(folder.root / name, ignore_errors=True)
    for name in ("agents", "developers", "logs", "run"):
        (folder.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    mesh_ca = CertificateAuthority.create("hairpin embedded mesh")
    hairpin_ca = CertificateAuthority.create("hairpin")
    mesh_ca.save(folder.mesh_authority)
    hairpin_ca.save(folder.authority)
    for name, account in _proxies(mesh).items():
        _write_identity(folder, name, mesh_ca, mesh.identity(account), hairpin_ca.certificate)
    write_private(folder.root / "mesh-ca.pem", mesh_ca.certificate.encode())
    write_private(folder.root / "hairpin-ca.pem", hairpin_ca.certificate.encode())
    _write_json(folder.mesh, mesh_to_document(mesh))
    tokens = [_write_agent(folder, mesh, agent) for agent in mesh.agents]
    tokens += [_write_developer(folder, mesh, user, hairpin_ca.certificate) for user in mesh.developers]
    _write_yaml(
        folder.settings,
        {
            "mesh": folder.mesh.name,
            "authority": str(folder.authority.relative_to(folder.root)),
            "meshAuthority": "mesh-ca.pem",
            "tokens": tokens,
        },
    )


def _proxies(mesh: Mesh) -> dict[str, str]:
    """The mesh's proxies and their service accounts."""
    workloads = {workload.name: workload.name for workload in mesh.workloads}
    return {**workloads, **{agent.name: AGENT for agent in mesh.agents}, ENTRY: ENTRY}


def _write_identity(
    folder: MeshFolder, name: str, mesh_ca: CertificateAuthority, spiffe_id: str, control_plane_ca: str
) -> None:
    """A sidecar's certificate, twice: it trusts the mesh's CA at its peers, and hairpin's at the control plane."""
    key, request = new_key_and_request()
    certificate = mesh_ca.sign(request, uris=(spiffe_id,), lifetime=MESH_CERTIFICATE_LIFETIME)
    for identity, authority in (
        (folder.identity(name), mesh_ca.certificate),
        (folder.control_plane_identity(name), control_plane_ca),
    ):
        write_identity(identity, key=key.encode(), chain=certificate.chain.encode(), authority=authority.encode())


def _write_agent(folder: MeshFolder, mesh: Mesh, agent: AgentReplica) -> dict[str, str]:
    token = secrets.token_urlsafe(32)
    token_file = folder.agent(agent.name).with_suffix(".token")
    write_private(token_file, token.encode())
    services = [workload.name for workload in mesh.workloads]
    _write_yaml(
        folder.agent(agent.name),
        {
            "name": agent.name,
            "namespace": mesh.namespace,
            "directory": str(folder.run(agent.name)),
            "controlPlane": {
                "api": f"https://{mesh.control_plane.api}",
                "xds": str(mesh.control_plane.xds),
                "authority": str(folder.root / "hairpin-ca.pem"),
                "tokenFile": str(token_file),
            },
            "listeners": {
                "steer": str(agent.steer),
                "tunnel": str(agent.tunnel),
                "egress": str(agent.egress),
                "ready": str(agent.ready),
            },
            "mesh": {"outbound": str(agent.outbound), "services": services},
        },
    )
    return {"sha256": token_hash(token), "name": agent.name, "role": "agent"}


def _write_developer(folder: MeshFolder, mesh: Mesh, user: str, authority: str) -> dict[str, str]:
    token = secrets.token_urlsafe(32)
    developer = Developer(
        server=f"https://{mesh.control_plane.api}",
        certificate_authority=authority,
        token=token,
        user=user,
        routing_key=mesh.routing_key,
    )
    write_developer(folder.developer(user), developer)
    return {"sha256": token_hash(token), "name": user, "role": "developer"}


def _write_json(path: Path, document: Any) -> None:
    write_private(path, json.dumps(document, indent=2).encode())


def _write_yaml(path: Path, document: Any) -> None:
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
