"""The CA's Secret: whose it is when two replicas start at once, and what is said of a broken one."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hairpin.certificate_reading import certificate_names
from hairpin.certificates import CertificateAuthority
from hairpin.errors import HairpinError
from hairpin.kubernetes.errors import ApiConflictError
from xds_server.server.kubernetes.authority import load_authority, server_certificate, server_names


class Secrets:
    """The API server's side of one Secret. `first` has it made by somebody else between our look and our write."""

    def __init__(self, secret: dict[str, Any] | None = None, *, first: dict[str, Any] | None = None) -> None:
        self.secret = secret
        self.first = first

    async def find(self, _kind, _name, *, namespace):
        assert namespace == "hairpin-system"
        return self.secret

    async def get(self, _kind, _name, *, namespace):
        return self.secret

    async def create(self, _kind, document, *, namespace):
        self.secret = self.secret or self.first
        if self.secret is not None:
            raise ApiConflictError(409, "AlreadyExists", "exists")
        self.secret = document
        return document


async def test_the_second_replica_has_the_firsts():
    secrets = Secrets()
    first = await load_authority(secrets, "hairpin-system")
    second = await load_authority(secrets, "hairpin-system")
    assert second.certificate == first.certificate and second.key == first.key


async def test_who_loses_the_race_takes_the_winners():
    winner = Secrets()
    await load_authority(winner, "hairpin-system")
    late = Secrets(first=winner.secret)
    authority = await load_authority(late, "hairpin-system")
    assert authority.certificate == base64.b64decode(winner.secret["data"]["tls.crt"]).decode()


@pytest.mark.parametrize("data", [None, {}, {"tls.key": "", "tls.crt": ""}, {"tls.key": "%", "tls.crt": "%"}])
async def test_a_secret_that_holds_none_is_named(data):
    with pytest.raises(HairpinError, match="the Secret hairpin-system/hairpin-ca"):
        await load_authority(Secrets({"data": data}), "hairpin-system")


async def test_two_that_do_not_belong_together_are_refused():
    one, other = CertificateAuthority.create("one"), CertificateAuthority.create("other")
    data = {"tls.key": one.key, "tls.crt": other.certificate}
    secret = {"data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}}
    with pytest.raises(HairpinError, match=r"tls\.crt is not of tls\.key"):
        await load_authority(Secrets(secret), "hairpin-system")


def test_the_controllers_own_certificate_bears_its_services_names():
    authority = CertificateAuthority.create("hairpin")
    _, chain, _ = server_certificate(authority, server_names("hairpin-system", "example.local"))
    assert certificate_names(chain).dns == (
        "hairpin-controller.hairpin-system",
        "hairpin-controller.hairpin-system.svc",
        "hairpin-controller.hairpin-system.svc.example.local",
        "xds-server",  # what agents' Envoys ask for
    )
