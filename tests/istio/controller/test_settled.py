"""What is written once stays as it is: the API server's copy is what was meant, and no controller writes it again."""

from __future__ import annotations

import pytest

from hairpin.envoy import config
from hairpin.model.delivery import Delivery
from hairpin.model.match_json import match_to_json
from hairpin.model.match_text import parse_match
from tests.support.controller import CrashingApi, controller, reporting, steered, workload
from tests.support.envoy import eventually

ROUTES_CAN_SAY = [
    "header x-user",
    "header x-user=42",
    "header x-user^=4",
    "header x-user~[0-9]+",
    "header x-note='say \"hi\"'",
    "baggage env=alice",
    "tracestate acme=b3",
    "query debug",
    "query id~[0-9]{1,3}",
    "path =/cart",
    "path ^/api/",
    'path ~"/v[0-9]+/.*"',
    "method POST",
    "path ^/a and header x-a=1 and method GET",
]
MATCHES = [
    *ROUTES_CAN_SAY,
    "header x-a=1 or header x-b=2",
    "header x-user!=42",
    "header x-user$=2",
    "header x-user*=beta",
    "header x-flag='' or header x-mode=é",
    "baggage env*=li",
    "tracestate acme!=b3",
    "path $.json",
    "not (method GET,HEAD or header x-readonly)",
    "path ^/api/ and (header x-team=red or not header x-team=blue)",
    "header x-percent='100%{x}'",
]


def filter_writes(api):
    return [what for what in api.written if "envoyfilters" in what]


BY_DELIVERY = {Delivery.INBOUND: MATCHES, Delivery.OUTBOUND: ROUTES_CAN_SAY}


@pytest.mark.parametrize("delivery", BY_DELIVERY)
async def test_nothing_is_written_twice(installed, api, laptop, agent, delivery):
    shop, matches = laptop.namespace, BY_DELIVERY[delivery]
    counting = CrashingApi.of(api, 10**6)
    async with controller(counting, shop, delivery=delivery) as replica, reporting(agent, replica):
        for number, text in enumerate(matches):
            match = match_to_json(parse_match(text))
            await laptop.claim(
                f"s-{number}", environment=f"e-{number}", match=match, localPort=3000 + number, leaseSeconds=60
            )
        agent.report(*(f"s-{number}.{shop}" for number in range(len(matches))))
        for number in range(len(matches)):
            await laptop.phase(f"s-{number}", "Active")
        before = await installed.client.list("EnvoyFilter", shop)
        written = filter_writes(counting)
        assert before and written
        # Each of these is a new plan, whole: a refusal has to be worked out.
        for number in range(5):
            await laptop.claim(f"no-{number}", environment=f"no-{number}", target={"name": "none", "namespace": shop})
            await laptop.phase(f"no-{number}", "Refused")
    # A controller that knows nothing but what the API server has.
    async with controller(counting, shop, delivery=delivery) as replica, reporting(agent, replica):
        await laptop.claim("last", environment="last", target={"name": "none", "namespace": shop})
        await laptop.phase("last", "Refused")
        await eventually(lambda: replica.tunnels.tunnels, what="the agent has reported")
        await laptop.claim("very-last", environment="very-last", target={"name": "none", "namespace": shop})
        await laptop.phase("very-last", "Refused")
    assert filter_writes(counting) == written
    # Versions, generations and managed fields are the same, too.
    assert await installed.client.list("EnvoyFilter", shop) == before


async def test_a_match_that_envoy_alone_refuses_is_refused_by_name_before_anything_is_written(
    installed, api, laptop, agent, monkeypatch
):
    """The model takes nothing that Istio's proxies refuse, as far as is known: here the real Envoy is stricter than they are."""
    shop = laptop.namespace
    layer = {"name": "static", "static_layer": {"re2.max_program_size.error_level": 100}}
    monkeypatch.setattr(config, "ISTIO_RUNTIME", {"layers": [layer]})
    await workload(installed, shop, "other")
    large = {"header": {"name": "x-user", "regex": "[a-z]{900}"}}
    async with controller(api, shop) as replica, reporting(agent, replica):
        small = {"header": {"name": "x-user", "regex": "[a-z]"}}
        await laptop.claim("good", match=small, environment="good", localPort=3000)
        agent.report(f"good.{shop}")
        await laptop.phase("good", "Active")
        before = await installed.client.list("EnvoyFilter", shop)
        for name, target in (("bad", "checkout"), ("bad-elsewhere", "other")):
            await laptop.claim(
                name, environment=name, match=large, localPort=3001, target={"name": target, "namespace": shop}
            )
        agent.report(*(f"{name}.{shop}" for name in ("good", "bad", "bad-elsewhere")))
        for name in ("bad", "bad-elsewhere"):
            status = await laptop.phase(name, "Refused")
            (condition,) = status["conditions"]
            assert condition["message"].startswith("spec.match: ") and "[a-z]{900}" in condition["message"]
            assert "is refused by Envoy" in condition["message"] and "program size" in condition["message"]
            assert not status.get("certificate")
        assert await installed.client.list("EnvoyFilter", shop) == before
        # Others come and go beside it.
        await laptop.claim("fine", environment="fine", localPort=3002)
        agent.report(f"good.{shop}", f"fine.{shop}")
        await laptop.phase("fine", "Active")
        assert await steered(installed.client, shop) == [f"fine.{shop}", f"good.{shop}"]
