"""Who may speak to the API server: users by token or by certificate, and their kubeconfigs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.cluster.pki import Pki

ADMIN = "admin"
GROUPS = {
    ADMIN: ("system:masters",),
    "alice": ("developers",),
    "bob": ("developers",),
    "carol": ("developers",),
    "olga": ("operators",),
    "mallory": (),
}
"""Users with a token, and their groups. Only the admin may do anything until a test binds a role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How the API server is reached from one place."""

    url: str
    ca: Path


class Users:
    """Tokens, certificates and kubeconfigs in a folder."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self._folder = folder
        self._pki = pki
        self.tokens = {name: secrets.token_hex(16) for name in GROUPS}
        self.token_file = folder / "tokens.csv"
        rows = [f'{token},{name},{name},"{",".join(GROUPS[name])}"' for name, token in self.tokens.items()]
        self.token_file.write_text("\n".join(rows) + "\n")
        self.token_file.chmod(0o600)

    def kubeconfig(self, server: Server, user: str = ADMIN, *, namespace: str = "default", place: str = "") -> Path:
        """A kubeconfig with a token; everybody may read it, since tests run as other users too."""
        name = "-".join(filter(None, ("kubeconfig", user, namespace, place)))
        return self._write(name, server, user, {"token": self.tokens[user]}, namespace)

    def certificate_kubeconfig(
        self, server: Server, user: str, groups: Sequence[str] = (), *, namespace: str = "default"
    ) -> Path:
        """A kubeconfig with a client certificate of any user and groups."""
        certificate, key = self._pki.user(user, groups)
        files = {"client-certificate": str(certificate), "client-key": str(key)}
        return self._write(f"kubeconfig-certificate-{user.replace(':', '-')}", server, user, files, namespace)

    def _write(self, name: str, server: Server, user: str, credentials: dict[str, str], namespace: str) -> Path:
        cluster = {"server": server.url, "certificate-authority": str(server.ca)}
        context = {"cluster": "test", "user": user, "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path = self._folder / name
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o644)
        return path
