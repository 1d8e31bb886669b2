"""A small cluster for plans: namespace `shop` with a few workloads, an agent, and somebody who does what plans say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hairpin.model.match_text import parse_match
from hairpin.model.session import EgressIdentity, Mode, SessionSpec
from hairpin.model.session_json import status_from_json, status_to_json
from hairpin.model.target import Target
from xds_server.delivery.istio.objects import Renderer
from xds_server.delivery.istio.plan import plan
from xds_server.delivery.istio.world import Plan, PlanSettings, World, changed_statuses
from xds_server.model.cluster import (
    ContainerPort,
    Key,
    PodFacts,
    ServiceFacts,
    ServicePortFacts,
    SessionFacts,
    WorkloadFacts,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RENDERER = Renderer()
LIFETIME = timedelta(minutes=10)
AGENT_0, AGENT_1 = Key("shop", "hairpin-agent-0"), Key("shop", "hairpin-agent-1")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def workload(name: str, kind: str = "deployment", *, labels: dict | None = None, **more: Any) -> WorkloadFacts:
    labels = {"app": name} if labels is None else labels
    fields = {"selector": labels, "labels": labels, "ports": (ContainerPort(number=8080, name="http"),)} | more
    return WorkloadFacts(kind=kind, key=Key("shop", name), **fields)


def service(name: str, *ports: ServicePortFacts, **selector: str) -> ServiceFacts:
    usual = (ServicePortFacts(number=80, name="http", target=8080),)
    return ServiceFacts(key=Key("shop", name), selector=selector or {"app": name}, ports=ports or usual)


def pod(name: str, owner: str, *, ready: bool = True, sidecar: bool = True, **more: Any) -> PodFacts:
    return PodFacts(key=Key("shop", name), owner=owner, ready=ready, ready_since=NOON, sidecar=sidecar, **more)


def agent(number: int, account: str = "", **more: Any) -> PodFacts:
    name = f"hairpin-agent-as-{account}" if account else "hairpin-agent"
    fields = {"service_account": account or "hairpin-agent"} | more
    return pod(f"{name}-{number}", f"statefulset/{name}", **fields)


def session(
    name: str,
    environment: str | None = "alice",
    *,
    owner: str = "",
    seconds: float = 0,
    target: str | None = "service/checkout:80",
    match: str | None = None,
    identity: str = "agent",
    lease: int = 10,
    port: int | None = 5000,
    mode: Mode = Mode.STEAL,
    **more: Any,
) -> SessionFacts:
    spec = SessionSpec(
        mode=mode if target else Mode.EGRESS,
        target=Target.parse(target, "shop") if target else None,
        environment=environment,
        match=parse_match(match) if match else None,
        local_port=port,
        lease_seconds=lease,
        owner=owner or environment or name,
        identity=EgressIdentity(identity),
    )
    fields = {"uid": f"uid-{name}", "request_key": f"key-of-{name}"} | more
    return SessionFacts(key=Key("shop", name), created=at(seconds), spec=spec, **fields)


def shop(*sessions: SessionFacts, **changes: Any) -> World:
    """One deployment, `checkout`, behind the Service of that name, and one replica of the agent."""
    fields: dict[str, Any] = {
        "settings": PlanSettings(certificate_authority="the CA\n"),
        "leading_since": at(-3600),
        "namespaces": frozenset({"shop"}),
        "services": (service("checkout"),),
        "workloads": (workload("checkout"),),
        "pods": (agent(0), pod("checkout-5d9c-x", "replicaset/checkout-5d9c", labels={"app": "checkout"})),
        "reports": {AGENT_0: frozenset()},
    }
    return World(sessions=sessions, **(fields | changes))


def planned(world: World, now: datetime = NOON) -> Plan:
    return plan(world, now, RENDERER)


def actions(world: World, made: Plan) -> list[tuple[str, Any]]:
    """What an executor does, in its order."""
    return [
        *(("end", key) for key in made.end),
        *(("apply", key) for key in made.apply),
        *(("delete", key) for key in made.delete),
        *(("validate", match) for match in sorted(made.validate, key=repr)),
        *(("status", key) for key in changed_statuses(world, made)),
    ]


def done(world: World, made: Plan, now: datetime, most: int | None = None) -> World:
    """The world after the first of a plan's actions, or all of them."""
    for verb, what in actions(world, made)[:most]:
        match verb:
            case "end":
                world = replace(world, sessions=[s for s in world.sessions if s.key != what])
            case "apply":
                world = replace(world, filters={**world.filters, what: made.apply[what]})
            case "delete":
                world = replace(world, filters={k: o for k, o in world.filters.items() if k != what})
            case "validate":
                world = replace(world, judged={**world.judged, what: ""})
            case "status":
                sessions = [_written(s, made, now) if s.key == what else s for s in world.sessions]
                world = replace(world, sessions=sessions)
    return world


def _written(facts: SessionFacts, made: Plan, now: datetime) -> SessionFacts:
    """A session with its new status, as it comes back from the API server."""
    status = made.statuses[facts.key]
    if facts.key in made.certify:
        status = replace(status, certificate=f"certificate for {facts.request_key}\n")
        facts = replace(facts, certificate_key=facts.request_key, certificate_end=now + LIFETIME)
    return replace(facts, status=status_from_json(status_to_json(status)))


def settle(world: World, now: datetime = NOON, rounds: int = 6) -> World:
    """The world when plans have nothing more to do at this time."""
    for _ in range(rounds):
        made = planned(world, now)
        if not actions(world, made):
            return world
        world = done(world, made, now)
    raise AssertionError(actions(world, planned(world, now)))


def reported(world: World, *ids: str, by: Key = AGENT_0) -> World:
    """The same with a report of these sessions' names from a replica."""
    return replace(world, reports={**world.reports, by: frozenset(f"{name}.shop" for name in ids)})


def changed(world: World, name: str, **fields: Any) -> World:
    """The same with other facts of a session; fields of its spec go by `spec_…`."""
    spec = {k.removeprefix("spec_"): v for k, v in fields.items() if k.startswith("spec_")}
    own = {k: v for k, v in fields.items() if not k.startswith("spec_")}
    sessions = [
        replace(s, spec=replace(s.spec, **spec) if s.spec and spec else s.spec, **own) if s.key.name == name else s
        for s in world.sessions
    ]
    return replace(world, sessions=sessions)


def phases(world: World) -> dict[str, str]:
    return {s.key.name: s.status.phase.value for s in world.sessions}


def conditions(world: World, name: str) -> dict[str, str]:
    return {c.type: c.message for s in world.sessions if s.key.name == name for c in s.status.conditions}


def steered(world: World) -> dict[str, list[str]]:
    """By the name of the sessions' object, the sessions in it."""
    return {key.name: sorted(_policies(o)) for key, o in sorted(world.filters.items()) if "sessions" in key.name}


def _policies(document: dict[str, Any]) -> Iterator[str]:
    for patch in document["spec"]["configPatches"]:
        yield from patch["patch"]["value"]["typedConfig"].get("shadowRules", {}).get("policies", {})
