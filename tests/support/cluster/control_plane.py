"""etcd, kube-apiserver and kube-controller-manager: their flags, and when they are ready."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.cluster.binaries import ControlPlaneBinaries
from tests.support.cluster.client import ApiError, Client
from tests.support.cluster.host import SERVICES
from tests.support.cluster.pki import Pki, service_account_key
from tests.support.cluster.processes import Programs
from tests.support.cluster.users import ADMIN, Server, Users

_READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the control plane listens: an address and ports that are free there."""

    ip: str
    api: int
    etcd: int
    etcd_peer: int
    controller_manager: int


class ControlPlane:
    """The three programs, started by `start` among others in `programs`.

    Args:
        folder: for data, keys and kubeconfigs.
        programs: who owns the programs.
        binaries: the programs.
        at: where they listen.
        data: etcd's folder; in `folder` by default.
        flags: more of the API server's.
    """

    def __init__(
        self,
        folder: Path,
        programs: Programs,
        binaries: ControlPlaneBinaries,
        at: Addresses,
        *,
        data: Path | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.binaries = binaries
        self.at = at
        self._data = data or folder / "etcd"
        self._flags = flags
        self.pki = Pki(folder)
        self.users = Users(folder, self.pki)
        self.server = Server(url=f"https://{at.ip}:{at.api}", ca=self.pki.certificate)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        self._serving = self.pki.server("apiserver", ["127.0.0.1", at.ip, "10.96.0.1", "localhost", *names])
        self._account_key = service_account_key(folder / "sa.key")

    def start(self) -> None:
        """Starts etcd and the API server; `start_controllers` once that answers."""
        at = self.at
        client, peer = f"http://127.0.0.1:{at.etcd}", f"http://127.0.0.1:{at.etcd_peer}"
        urls = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        cluster = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        self.programs.start("etcd", [self.binaries.etcd, "--data-dir", self._data, *urls, *cluster])
        certificate, key = self._serving
        self.programs.start(
            "kube-apiserver",
            [
                self.binaries.apiserver,
                f"--etcd-servers={client}",
                f"--bind-address={at.ip}",
                f"--advertise-address={at.ip}",
                f"--secure-port={at.api}",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                f"--client-ca-file={self.pki.certificate}",
                f"--token-auth-file={self.users.token_file}",
                f"--service-cluster-ip-range={SERVICES}",
                f"--service-account-key-file={self._account_key}",
                f"--service-account-signing-key-file={self._account_key}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",
                # Debian's etcd 3.4 can't say how far a watch is, which this needs: it waits 3 s for each kind, and logs, for ever.
                "--feature-gates=SizeBasedListCostEstimate=false",
                "--endpoint-reconciler-type=none" if at.ip.startswith("127.") else "--apiserver-count=1",
                *self._flags,
            ],
        )

    def start_controllers(self) -> None:
        """Starts kube-controller-manager."""
        controllers = "*,-node-lifecycle-controller"  # nobody renews the node's lease here
        self.programs.start(
            "kube-controller-manager",
            [
                self.binaries.controller_manager,
                f"--kubeconfig={self.users.kubeconfig(self.server, ADMIN, place='controllers')}",
                f"--service-account-private-key-file={self._account_key}",
                f"--root-ca-file={self.pki.certificate}",
                f"--cluster-signing-cert-file={self.pki.certificate}",
                f"--cluster-signing-key-file={self.pki.key}",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                f"--secure-port={self.at.controller_manager}",
                f"--controllers={controllers}",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
                "--concurrent-deployment-syncs=5",
            ],
        )

    async def ready(self, client: Client) -> None:
        """Waits until the API server serves, RBAC's own roles included.

        Raises:
            TimeoutError: it does not, or a program ended: its log's end is in the message.
        """
        end = time.monotonic() + _READY_SECONDS
        while True:
            try:
                await client.request("GET", "/readyz")
            except (aiohttp.ClientError, ApiError, ConnectionError):
                if time.monotonic() > end or self.programs.dead():
                    raise TimeoutError(f"the API server does not get ready\n{self.programs.tails()}") from None
                await asyncio.sleep(0.1)
            else:
                return
