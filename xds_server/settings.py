"""The control plane's settings: one YAML file, written by the mesh.

    mesh: mesh.json                  # the mesh, with every address
    authority: certificates/hairpin  # hairpin's CA: a folder with its key
    meshAuthority: mesh-ca.pem       # the mesh's CA: its certificate alone
    tokens: [{sha256: …, name: alice, role: developer}]

Paths are relative to the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hairpin.errors import InvalidFieldError
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.model.reader import Reader
from hairpin.yaml_file import load_yaml
from xds_server.server.tokens import Caller, Role, TokenEntry

if TYPE_CHECKING:
    from pathlib import Path

    from hairpin.model.mesh import Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the control plane needs to know."""

    mesh: Mesh
    authority: Path
    """hairpin's CA: signs sessions, agents and the control plane itself."""
    mesh_authority: str
    """The mesh's CA certificate in PEM: sidecars show certificates of it."""
    tokens: tuple[TokenEntry, ...]


def read_settings(path: Path) -> Settings:
    """Read the file.

    Raises:
        InvalidFieldError: a field is wrong.
        NotFoundError: a file is not there.
    """
    reader = Reader(load_yaml(path), "")
    settings = Settings(
        mesh=mesh_from_document(load_yaml(path.parent / reader.text("mesh")), iter(())),
        authority=path.parent / reader.text("authority"),
        mesh_authority=(path.parent / reader.text("meshAuthority")).read_text(),
        tokens=tuple(_token(entry, index) for index, entry in enumerate(reader.items("tokens"))),
    )
    reader.finish()
    return settings


def _token(document: Any, index: int) -> TokenEntry:
    reader = Reader(document, f"tokens[{index}]")
    role = reader.text("role")
    if role not in list(Role):
        raise InvalidFieldError(reader.path("role"), role, "is not a role", f"use {' or '.join(Role)}")
    entry = TokenEntry(reader.text("sha256"), Caller(reader.text("name"), Role(role)))
    reader.finish()
    return entry
