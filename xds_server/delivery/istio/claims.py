"""What a session asks for, looked at by itself: its requests, where they are, as whom it calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hairpin.errors import SkewError
from hairpin.model.conflict import Holding
from hairpin.model.environment import Environment, requests_of
from hairpin.model.match import Match, StringKind
from hairpin.model.mesh import spiffe_id
from hairpin.model.session import AgentAddress, Condition, EgressAddress, EgressIdentity, Mode, SessionSpec
from hairpin.model.version import check_laptop
from xds_server.delivery.istio.by_route import check_sayable, service_points
from xds_server.delivery.istio.cluster_index import ClusterIndex, covers, reference
from xds_server.delivery.istio.conditions import (
    BAD_ENVIRONMENT,
    BAD_MATCH,
    INVALID,
    LEASE_BOUNDED,
    NO_IDENTITY_AGENT,
    NO_MIRROR,
    NOT_A_MEMBER,
    OTHER_ENVOY_FILTER,
    OWN_DEPLOYMENT,
    VERSION_SKEW,
    field_refusal,
    refusal,
    remark,
)
from xds_server.delivery.istio.points import Point
from xds_server.delivery.istio.resolve import Resolved, resolve
from xds_server.delivery.istio.standing import lease, replicas_of
from xds_server.delivery.istio.world import PlanSettings, World
from xds_server.delivery.validate import predicates
from xds_server.model.cluster import EnvironmentFacts, PodFacts, SessionFacts, WorkloadFacts

ENVIRONMENT_LABELS = ("env", "environment", "hairpin.dev/environment")
"""By which a workload may say whose environment it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a session asks for, if nobody else does."""

    points: tuple[Point, ...] = ()
    match: Match | None = None
    """None in mode `egress`."""
    environment: Environment | None = None
    mirror: bool = False
    """Whether copies are asked for."""
    validated: bool = True
    """Whether Envoy takes the match: else nothing is certified or written yet."""
    account: str = ""
    """The service account as which it calls; empty: the agent's."""
    conditions: tuple[Condition, ...] = ()

    def holdings(self, session: SessionFacts) -> list[Holding]:
        """The same, to be compared with others'."""
        return [
            Holding(
                session=session.key.name,
                owner=session.spec.owner if session.spec else "",
                since=session.created,
                namespace=point.workload.key.namespace,
                workload=reference(point.workload),
                port=point.port,
                match=self.match,
                mirror=self.mirror,
            )
            for point in self.points
            if self.match is not None
        ]


def claim(world: World, index: ClusterIndex, session: SessionFacts) -> Claim:
    """What a session asks for.

    Raises:
        RefusedError: it can't have it, whoever else there is.
    """
    spec = _readable(session)
    environment = _environment(world, spec)
    resolved = Resolved(points=(), workloads=())
    points: tuple[Point, ...] = ()
    match = None
    remarks = _bounded(world.settings, session)
    if spec.mode is not Mode.EGRESS and spec.target is not None:
        if spec.target.namespace != session.key.namespace:
            problem = "is not the session's own: a namespace's role would reach into another"
            remedy = f"make the session in {spec.target.namespace}, or name {session.key.namespace}"
            raise field_refusal(INVALID, "spec.target.namespace", spec.target.namespace, problem, remedy)
        verdict = world.judged.get(spec.match) if spec.match is not None else ""
        if verdict:
            raise refusal(BAD_MATCH, verdict)
        delivery = world.settings.delivery
        resolved = resolve(index, spec.target, sidecars=not delivery.by_route)
        match = requests_of(environment, spec.match)
        remarks += resolved.conditions
        points = resolved.points
        if delivery.by_route:
            if spec.mode is Mode.MIRROR:
                problem = f"is not to be had where requests are steered by {delivery.value}: its routes make no copies"
                raise field_refusal(
                    NO_MIRROR, "spec.mode", spec.mode.value, problem, "use steal, or ask operators for inbound"
                )
            check_sayable(match)
            points = service_points(index, points, spec.target)
        else:
            remarks += _others(world, points)
            remarks += _own_deployment(index, environment, resolved, spec.target.name)
    return Claim(
        points=points,
        match=match,
        environment=environment,
        mirror=spec.mode is Mode.MIRROR,
        validated=_validated(world, session, spec),
        account=_account(world, index, session, resolved.workloads),
        conditions=tuple(remarks),
    )


def needs_validation(match: Match | None) -> bool:
    """Whether Envoy has to be asked: the rest is sound by itself."""
    return match is not None and any(p.kind is StringKind.REGEX for p in predicates(match))


def tunnel_addresses(
    settings: PlanSettings, replicas: Sequence[PodFacts], versions: Mapping[str, str]
) -> tuple[AgentAddress, ...]:
    """Where laptops reach the replicas of a steering agent."""
    published = settings.published
    return tuple(
        AgentAddress(
            name=pod.key.name,
            host=_host(settings, pod),
            tunnel_port=published.tunnel_port if published else settings.tunnel_port,
            egress_port=published.egress_port if published else settings.egress_port,
            version=versions.get(pod.key.name, ""),
        )
        for pod in replicas
    )


def egress_addresses(settings: PlanSettings, replicas: Sequence[PodFacts]) -> tuple[EgressAddress, ...]:
    """Where laptops reach the replicas of an egress-only agent."""
    port = settings.published.egress_port if settings.published else settings.egress_port
    return tuple(EgressAddress(name=pod.key.name, host=_host(settings, pod), port=port) for pod in replicas)


def agent_identity(settings: PlanSettings, namespace: str, account: str = "") -> str:
    """The URI SAN of the certificate of a namespace's agent."""
    return spiffe_id(settings.trust_domain, namespace, account or settings.agent)


def _host(settings: PlanSettings, pod: PodFacts) -> str:
    host = settings.published.host if settings.published else ""
    return host.replace("{pod}", pod.key.name).replace("{namespace}", pod.key.namespace)


def _readable(session: SessionFacts) -> SessionSpec:
    if session.spec is None:
        raise refusal(INVALID, session.problem)
    try:
        check_laptop(session.spec.client)
    except SkewError as error:
        raise refusal(VERSION_SKEW, str(error)) from None
    if not session.spec.owner:
        raise field_refusal(
            INVALID, "spec.owner", None, "is missing", "write your own name, as `kubectl auth whoami` has it"
        )
    if session.request_problem:
        raise refusal(INVALID, session.request_problem)
    return session.spec


def _environment(world: World, spec: SessionSpec) -> Environment | None:
    if spec.environment is None:
        return None
    facts = next((e for e in world.environments if e.name == spec.environment), EnvironmentFacts(name=spec.environment))
    if facts.problem:
        raise refusal(BAD_ENVIRONMENT, f"environment {facts.name} can't be read: {facts.problem}")
    if facts.members and spec.owner not in facts.members:
        members = sorted(facts.members)
        shown = ", ".join(members[:5]) + ("…" if len(members) > 5 else "")  # noqa: PLR2004
        remedy = f"ask one of its members ({shown}) to have you added"
        raise field_refusal(NOT_A_MEMBER, "spec.environment", facts.name, f"is not {spec.owner}'s", remedy)
    return Environment(spec.environment, facts.routing_key or world.settings.routing_key)


def _validated(world: World, session: SessionFacts, spec: SessionSpec) -> bool:
    """What has a certificate was validated before, perhaps by a controller that is no more."""
    return not needs_validation(spec.match) or spec.match in world.judged or bool(session.certificate_key)


def _account(world: World, index: ClusterIndex, session: SessionFacts, workloads: Sequence[WorkloadFacts]) -> str:
    """The service account of an egress-only agent, if one is asked for."""
    if session.spec is None or session.spec.identity is not EgressIdentity.TARGET:
        return ""
    field, value = "spec.identity", EgressIdentity.TARGET.value
    accounts = sorted({workload.service_account for workload in workloads})
    if len(accounts) != 1:
        problem = f"has several meanings: {', '.join(accounts)}" if accounts else "has no meaning without a workload"
        raise field_refusal(NO_IDENTITY_AGENT, field, value, problem, "name one workload: KIND/NAME")
    account = accounts[0]
    if not replicas_of(index, world.settings, session.key.namespace, account):
        problem = f"needs an agent that runs as service account {account} of {session.key.namespace}, and there is none"
        remedy = f"ask an operator for `hairpin install --identity {account}`, or leave it out to call as the agent"
        raise field_refusal(NO_IDENTITY_AGENT, field, value, problem, remedy)
    return account


def _bounded(settings: PlanSettings, session: SessionFacts) -> list[Condition]:
    seconds, wanted = lease(settings, session).total_seconds(), session.spec.lease_seconds if session.spec else 0
    if seconds == wanted:
        return []
    return [remark(LEASE_BOUNDED, f"the lease is {seconds:g} seconds, not {wanted}: the operators' bounds")]


def _others(world: World, points: Sequence[Point]) -> list[Condition]:
    """Somebody else's EnvoyFilters on the same inbound side."""
    return [
        remark(
            OTHER_ENVOY_FILTER,
            f"EnvoyFilter {facts.key} changes the inbound side of {reference(point.workload)} too; "
            "if steering does not work, look there first",
        )
        for facts in sorted(world.foreign_filters, key=lambda facts: facts.key)
        for point in points
        if facts.inbound
        and facts.key.namespace in (point.workload.key.namespace, world.settings.root_namespace)
        and covers(facts.selector, point.workload.labels)
    ]


def _own_deployment(
    index: ClusterIndex, environment: Environment | None, resolved: Resolved, name: str
) -> list[Condition]:
    """A session belongs on the environment's own deployment of the service, where there is one."""
    if environment is None or not resolved.points:
        return []
    steered = {(point.workload.kind, point.workload.key) for point in resolved.points}
    first = resolved.points[0].workload
    for other in index.workloads(first.key.namespace):
        named = other.key.name == f"{name}-{environment.name}"
        labelled = other.labels.get("app") == first.labels.get("app", name) and any(
            other.labels.get(label) == environment.name for label in ENVIRONMENT_LABELS
        )
        if (named or labelled) and (other.kind, other.key) not in steered:
            message = (
                f"environment {environment.name} has its own {reference(other)}, which may get its requests instead"
            )
            return [remark(OWN_DEPLOYMENT, f"{message}; name {reference(other)} as the target to take those")]
    return []
