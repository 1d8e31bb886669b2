"""Who we are to the API server: a kubeconfig as kubectl reads it, or a pod's service account, by the kubernetes package."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hairpin.errors import HairpinError, NotFoundError

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EARLY = timedelta(seconds=10)
"""How long before its end a credential is renewed."""


class Credentials:
    """Address, TLS and token of one user at one API server."""

    def __init__(
        self, configuration: Any, loader: Any | None, namespace: str, again: Callable[[], Any] | None = None
    ) -> None:
        self._configuration = configuration
        self._loader = loader
        self._again = again
        self.namespace = namespace
        self._tls = _tls(configuration)
        self._lock = asyncio.Lock()
        self._token = ""

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self._configuration.host).rstrip("/")

    @property
    def context(self) -> str:
        """The kubeconfig's context; empty for a pod's service account."""
        return str(self._loader.current_context["name"]) if self._loader is not None else ""

    def arguments(self) -> dict[str, Any]:
        """For aiohttp's requests: headers, TLS, proxy."""
        configuration = self._configuration
        arguments: dict[str, Any] = {"headers": {}, "ssl": self._tls, "proxy": configuration.proxy or None}
        if self._token:
            arguments["headers"]["Authorization"] = self._token
        if configuration.tls_server_name:
            arguments["server_hostname"] = configuration.tls_server_name
        return arguments

    async def refresh(self) -> None:
        """Renew what is about to end."""
        end = getattr(self._loader, "exec_plugin_expiry", None)
        if end is not None and end - _EARLY <= datetime.now(UTC):
            await self.renew()
        await self._read_token()

    async def _read_token(self) -> None:
        # This rereads a pod's token once a minute.
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        self._token = (token or "").strip()

    async def renew(self) -> None:
        """Get new ones: the API server refuses these, or they end.

        Raises:
            HairpinError: the kubeconfig can't be read any more, or its exec plugin failed.
        """
        if self._loader is None:
            return
        before = self._configuration.api_key.get("BearerToken")
        async with self._lock:
            if before != self._configuration.api_key.get("BearerToken"):
                return  # another task has
            # What the kubeconfig says now: who logs in anew has other tokens or certificates written into it.
            loader = self._again() if self._again is not None else self._loader
            await _load(loader, self._configuration)
            self._loader = loader
            self._tls = _tls(self._configuration)
            await self._read_token()


async def load_credentials(*, kubeconfig: str | None, context: str | None, in_cluster: bool) -> Credentials:
    """Read the kubeconfig, or the pod's service account.

    Raises:
        NotFoundError: there is none, or no such context.
        HairpinError: it can't be used.
    """
    from kubernetes.aio.client import Configuration  # noqa: PLC0415 # takes a while
    from kubernetes.aio.config import ConfigException, load_incluster_config  # noqa: PLC0415
    from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger  # noqa: PLC0415

    configuration = Configuration()
    if in_cluster and not kubeconfig and context is None and (_SERVICE_ACCOUNT / "token").is_file():
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise HairpinError(f"the pod's service account can't be used: {error}") from error
        return Credentials(configuration, None, (_SERVICE_ACCOUNT / "namespace").read_text().strip())
    paths = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path):
        where = "--kubeconfig" if kubeconfig else "KUBECONFIG" if os.environ.get("KUBECONFIG") else "kubeconfig"
        raise NotFoundError(f"{where}: there is no file {paths}; name your cluster's kubeconfig")

    def read(context: str | None) -> Any:
        try:
            merged = KubeConfigMerger(paths).config  # type: ignore[no-untyped-call]
            wanted = _context(merged.value, context)
            return KubeConfigLoader(config_dict=merged, active_context=wanted, config_base_path=None)  # type: ignore[no-untyped-call]
        except HairpinError:
            raise
        except Exception as error:  # whatever a malformed file makes of the library
            raise HairpinError(f"the kubeconfig {paths} can't be used: {error}") from error

    loader = read(context)
    await _load(loader, configuration)
    current = loader.current_context
    # Its current context may be another by the time it is read again: we stay where we are.
    return Credentials(
        configuration,
        loader,
        str(current["context"].get("namespace") or "default"),
        lambda: read(str(current["name"])),
    )


def _context(kubeconfig: Any, named: str | None) -> str:
    names = [entry["name"] for entry in kubeconfig["contexts"]]
    wanted = named or kubeconfig.get("current-context") or ""
    if wanted not in names:
        choice = f"it has {', '.join(names)}" if names else "it has none"
        problem = f"has no context {wanted!r}" if wanted else "has no current context"
        raise NotFoundError(f"--context: the kubeconfig {problem}; {choice}")
    return str(wanted)


async def _load(loader: Any, configuration: Any) -> None:
    try:
        await loader.load_and_set(configuration)
    except Exception as error:  # likewise
        raise HairpinError(f"the kubeconfig's credentials can't be used: {error}") from error
    # The library logs a plugin's failure and goes on as nobody.
    user = loader._user  # noqa: SLF001 # there is no other way to it
    if user is not None and "exec" in user and not (configuration.api_key or configuration.cert_file):
        command = user["exec"]["command"]
        raise HairpinError(f"the kubeconfig's exec plugin {command!r} gave no credentials; run it by hand to see why")


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    # Python 3.13 is stricter than kubectl: clusters' CAs often lack an authority key identifier.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
