from __future__ import annotations

from dataclasses import replace

from tests.support.xds import ECDS, extension
from xds_server.cache.response_cache import ResponseCache
from xds_server.protocol.actions import SendResponse, Variant
from xds_server.protocol.frames import DeltaDiscoveryResponse, DiscoveryResponse

E = extension("e")
RESPONSE = SendResponse(variant=Variant.SOTW, type_url=ECDS, version="v", nonce="1", resources=(E,))


def test_one_encoding_serves_every_nonce():
    cache = ResponseCache()
    nonces = [DiscoveryResponse.FromString(cache.encode(replace(RESPONSE, nonce=n))).nonce for n in ("1", "2", "30")]
    assert nonces == ["1", "2", "30"]
    assert (cache.encoded, cache.served) == (1, 3)


def test_what_differs_is_encoded_apart():
    cache = ResponseCache()
    others = [
        RESPONSE,
        replace(RESPONSE, version="w"),
        replace(RESPONSE, resources=()),
        replace(RESPONSE, resources=(extension("f"),)),
        replace(RESPONSE, resources=(extension("e", 2),)),  # the name and version of the type are the same
        replace(RESPONSE, variant=Variant.DELTA),
        replace(RESPONSE, variant=Variant.DELTA, removed=("x",)),
    ]
    assert len({cache.encode(response) for response in others}) == len(others)
    assert cache.encoded == len(others)


def test_both_variants():
    cache = ResponseCache()
    sotw = DiscoveryResponse.FromString(cache.encode(RESPONSE))
    delta = DeltaDiscoveryResponse.FromString(cache.encode(replace(RESPONSE, variant=Variant.DELTA, removed=("x",))))
    assert [r.value for r in sotw.resources] == [r.resource.value for r in delta.resources] == [E.body]
    assert list(delta.removed_resources) == ["x"]


def test_the_least_recently_used_goes_first():
    size = len(ResponseCache().encode(RESPONSE))
    cache = ResponseCache(limit=2 * size)
    for version in ("a", "b", "a", "c", "a", "b"):  # b was evicted by c
        cache.encode(replace(RESPONSE, version=version))
    assert cache.encoded == 4
    assert len(cache) == 2


def test_one_larger_than_the_limit_is_not_kept():
    cache = ResponseCache(limit=1)
    assert DiscoveryResponse.FromString(cache.encode(RESPONSE)).nonce == "1"
    assert len(cache) == 0
