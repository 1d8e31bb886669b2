"""hairpin's CA in the cluster: one Secret in the controller's namespace, made by whichever replica comes first."""

from __future__ import annotations

import base64
import binascii
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from hairpin.certificates import CERTIFICATE_FILE, KEY_FILE, CertificateAuthority, new_key_and_request
from hairpin.errors import HairpinError
from hairpin.kubernetes.errors import ApiConflictError
from hairpin.kubernetes.installation import AUTHORITY, CONTROLLER, metadata
from hairpin.kubernetes.kinds import SECRETS
from hairpin.mesh.sidecar import XDS_SERVER_NAME

if TYPE_CHECKING:
    from datetime import datetime

    from hairpin.kubernetes.api import Api, JsonObject

log = logging.getLogger(__name__)

COMMON_NAME = "hairpin"
SERVER_CERTIFICATE_LIFETIME = timedelta(days=30)


async def load_authority(api: Api, namespace: str) -> CertificateAuthority:
    """The CA in the Secret `hairpin-ca`; a new one if there is none.

    Raises:
        ApiError: the Secret can be neither read nor made.
        HairpinError: what it holds is no CA.
    """
    secret = await api.find(SECRETS, AUTHORITY, namespace=namespace)
    if secret is None:
        authority = CertificateAuthority.create(COMMON_NAME)
        try:
            await api.create(SECRETS, _secret(authority, namespace), namespace=namespace)
        except ApiConflictError:
            # The other replica's is the one.
            secret = await api.get(SECRETS, AUTHORITY, namespace=namespace)
        else:
            log.info("a new certificate authority is in the Secret %s/%s", namespace, AUTHORITY)
            return authority
    return _read(secret, namespace)


def server_names(namespace: str, cluster_domain: str) -> tuple[str, ...]:
    """The names by which agents reach the controller, and the one that their Envoys ask for wherever it is."""
    service = f"{CONTROLLER}.{namespace}"
    return (service, f"{service}.svc", f"{service}.svc.{cluster_domain}", XDS_SERVER_NAME)


def server_certificate(authority: CertificateAuthority, names: tuple[str, ...]) -> tuple[str, str, datetime]:
    """A new key, its chain, and when that ends."""
    key, request = new_key_and_request()
    certificate = authority.sign(request, dns=names, lifetime=SERVER_CERTIFICATE_LIFETIME)
    return key, certificate.chain, certificate.not_after


def _secret(authority: CertificateAuthority, namespace: str) -> JsonObject:
    data = {KEY_FILE: authority.key, CERTIFICATE_FILE: authority.certificate}
    return {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.name,
        "metadata": metadata(AUTHORITY, namespace),
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }


def _read(secret: JsonObject, namespace: str) -> CertificateAuthority:
    where = f"the Secret {namespace}/{AUTHORITY}"
    try:
        key, certificate = (
            base64.b64decode(secret["data"][name], validate=True) for name in (KEY_FILE, CERTIFICATE_FILE)
        )
    except (KeyError, TypeError, binascii.Error) as error:
        remedy = "delete it to get a new one: every session and agent then gets new certificates"
        raise HairpinError(f"{where} has no {KEY_FILE} and {CERTIFICATE_FILE}; {remedy}") from error
    return CertificateAuthority.parse(key, certificate, where)
