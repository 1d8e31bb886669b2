"""Facts from the API server's JSON: what kubectl shows on the left, what plans see on the right."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.model.environment import Carrier, RoutingKey
from hairpin.model.session import Phase, SessionStatus
from hairpin.model.session_json import status_to_json
from xds_server.model.cluster import ContainerPort, Key, ServicePortFacts
from xds_server.sources.kubernetes.facts import (
    environment_facts,
    envoy_filter_facts,
    pod_facts,
    service_facts,
    session_facts,
    workload_facts,
)

DEPLOYMENT = """
metadata: {name: checkout, namespace: shop}
spec:
  selector: {matchLabels: {app: checkout}}
  template:
    metadata: {labels: {app: checkout, version: v1}}
    spec:
      serviceAccountName: checkout
      containers:
      - {name: app, ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}
      - {name: metrics, ports: [{containerPort: 9100}]}
"""


def load(text: str) -> dict:
    return yaml.safe_load(text)


def test_a_deployment():
    facts = workload_facts("deployment", load(DEPLOYMENT))
    assert (facts.kind, facts.key, facts.service_account) == ("deployment", Key("shop", "checkout"), "checkout")
    assert facts.selector == {"app": "checkout"} and facts.labels == {"app": "checkout", "version": "v1"}
    assert facts.ports == (ContainerPort(number=8080, name="http"), ContainerPort(number=9100))


def test_a_selector_of_expressions_is_none_and_a_rollout_without_template_has_its_selectors_labels():
    document = load(DEPLOYMENT)
    document["spec"]["selector"]["matchExpressions"] = [{"key": "app", "operator": "Exists"}]
    assert workload_facts("deployment", document).selector is None
    rollout = load("{metadata: {name: x, namespace: shop}, spec: {selector: {matchLabels: {app: x}}, workloadRef: {}}}")
    facts = workload_facts("rollout", rollout)
    assert (facts.labels, facts.service_account, facts.ports) == ({"app": "x"}, "default", ())


def test_a_service():
    document = load("""
metadata: {name: checkout, namespace: shop}
spec:
  selector: {app: checkout}
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: grpc, port: 90, targetPort: 9090, appProtocol: kubernetes.io/h2c}
  - {name: same, port: 70}
  - {name: dns, port: 53, protocol: UDP}
""")
    facts = service_facts(document)
    assert (facts.key, facts.selector) == (Key("shop", "checkout"), {"app": "checkout"})
    assert facts.ports == (
        ServicePortFacts(number=80, name="http", target="web"),
        ServicePortFacts(number=90, name="grpc", target=9090, app_protocol="kubernetes.io/h2c"),
        ServicePortFacts(number=70, name="same", target=70),
    )
    external = load("{metadata: {name: x, namespace: shop}, spec: {type: ExternalName, externalName: example.com}}")
    assert (service_facts(external).selector, service_facts(external).ports) == ({}, ())


POD = """
metadata:
  name: checkout-5d9c-x
  namespace: shop
  labels: {app: checkout}
  ownerReferences: [{kind: Node, name: n}, {kind: ReplicaSet, name: checkout-5d9c, controller: true}]
spec:
  serviceAccountName: checkout
  containers: [{name: app, ports: [{name: http, containerPort: 8080}]}]
  initContainers: [{name: istio-proxy, restartPolicy: Always, ports: [{containerPort: 15090}]}]
status:
  podIP: 10.0.0.7
  phase: Running
  conditions:
  - {type: PodScheduled, status: "True"}
  - {type: Ready, status: "True", lastTransitionTime: "2026-01-01T12:00:00Z"}
"""


def test_a_pod():
    facts = pod_facts(load(POD))
    assert (facts.key, facts.owner, facts.ip) == (
        Key("shop", "checkout-5d9c-x"),
        "replicaset/checkout-5d9c",
        "10.0.0.7",
    )
    assert facts.ready and facts.sidecar and not facts.terminating
    assert facts.ready_since == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert facts.ports == (ContainerPort(number=8080, name="http"),)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"spec": {"containers": [{"name": "app"}]}}, {"sidecar": False, "ports": (), "service_account": "default"}),
        ({"spec": {"containers": [{"name": "istio-proxy"}]}}, {"sidecar": True}),
        ({"status": {}}, {"ready": False, "ready_since": None, "ip": ""}),
        ({"status": {"phase": "Succeeded"}}, {"terminating": True}),
        ({"metadata": {"name": "a", "namespace": "b"}}, {"owner": "", "labels": {}}),
        (
            {"metadata": {"name": "a", "namespace": "b", "deletionTimestamp": "2026-01-01T12:00:00Z"}},
            {"terminating": True},
        ),
        (
            {
                "metadata": {"name": "a", "namespace": "b", "annotations": {"sidecar.istio.io/status": "{}"}},
                "spec": {"containers": [{"name": "app"}]},
            },
            {"sidecar": True},
        ),
    ],
)
def test_what_pods_may_be(change, expected):
    facts = pod_facts({**load(POD), **change})
    assert {name: getattr(facts, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("patch", "inbound"),
    [
        ("{applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND}}", True),
        ("{applyTo: HTTP_ROUTE, match: {context: ANY}}", True),
        ("{applyTo: LISTENER}", True),
        ("{applyTo: HTTP_FILTER, match: {context: SIDECAR_OUTBOUND}}", False),
        ("{applyTo: HTTP_FILTER, match: {context: GATEWAY}}", False),
        ("{applyTo: CLUSTER, match: {context: SIDECAR_INBOUND}}", False),
        ("nonsense", False),
    ],
)
def test_another_envoy_filter(patch, inbound):
    document = load(f"""
metadata: {{name: lua, namespace: shop}}
spec: {{workloadSelector: {{labels: {{app: checkout}}}}, configPatches: [{patch}]}}
""")
    facts = envoy_filter_facts(document)
    assert (facts.key, facts.selector, facts.inbound) == (Key("shop", "lua"), {"app": "checkout"}, inbound)
    waypoint = {**document, "spec": {**document["spec"], "targetRefs": [{"kind": "Gateway", "name": "w"}]}}
    assert not envoy_filter_facts(waypoint).inbound


def session_document(**spec) -> dict:
    return {
        "metadata": {
            "name": "checkout-alice-1f2e3d",
            "namespace": "shop",
            "uid": "u",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "managedFields": [],
        },
        "spec": {"owner": "alice", "environment": "alice", "target": {"name": "checkout", "namespace": "shop"}, **spec},
    }


def test_a_new_session():
    facts = session_facts(session_document())
    assert facts.spec is not None and (facts.spec.owner, facts.spec.environment) == ("alice", "alice")
    assert (facts.id, facts.uid, facts.resource_version) == ("checkout-alice-1f2e3d.shop", "u", "7")
    assert facts.created == datetime(2026, 1, 1, 12, tzinfo=UTC) and not facts.deleting and not facts.problem
    assert (facts.status, facts.request_key, facts.certificate_key) == (SessionStatus(), "", "")


def test_how_a_sessions_certificate_stands():
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    authority = CertificateAuthority.create("test", now=now)
    (_, request), (_, another) = new_key_and_request(), new_key_and_request()
    chain = authority.sign(request, dns=("a.shop",), lifetime=timedelta(minutes=10), now=now).chain
    status = SessionStatus(
        id="a.shop", phase=Phase.ACTIVE, certificate=chain, tunnels=("hairpin-agent-0",), last_seen=now
    )
    document = {**session_document(certificateRequest=request), "status": status_to_json(status)}
    facts = session_facts(document)
    assert facts.status == status and facts.certificate_end == now + timedelta(minutes=10)
    assert facts.request_key == facts.certificate_key != ""
    renewed = session_facts({**session_document(certificateRequest=another), "status": status_to_json(status)})
    assert renewed.request_key not in ("", renewed.certificate_key)


def test_a_request_that_cant_be_signed_is_told():
    facts = session_facts(session_document(certificateRequest="-----BEGIN"))
    assert facts.spec is not None and facts.request_key == ""
    assert "spec.certificateRequest" in facts.request_problem


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"leaseSeconds": "ten"}, "spec.leaseSeconds"),
        ({"targt": {}}, "spec.targt"),
        ({"target": None}, "spec.target"),
        ({"environment": "a,b"}, "spec.environment"),
    ],
)
def test_a_spec_that_cant_be_read_says_why(spec, words):
    facts = session_facts(session_document(**spec))
    assert facts.spec is None and words in facts.problem and facts.uid == "u"


def test_a_name_that_is_no_label_would_make_ids_ambiguous():
    document = session_document()
    document["metadata"]["name"] = "a.b"
    assert "metadata.name" in session_facts(document).problem


def test_a_status_that_cant_be_read_is_an_empty_one():
    assert session_facts({**session_document(), "status": {"phase": "Odd"}}).status == SessionStatus()


def test_a_certificate_that_cant_be_read_is_none():
    facts = session_facts({**session_document(), "status": {"certificate": "x"}})
    assert (facts.certificate_key, facts.certificate_end) == ("", None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (None, frozenset(), "")),
        (
            {"routingKey": {"baggage": "env"}, "members": ["alice"], "description": "x"},
            (RoutingKey(Carrier.BAGGAGE, "env"), frozenset({"alice"}), ""),
        ),
        ({"routingKey": {"heather": "x"}}, (None, frozenset(), "spec.routingKey.heather")),
        ({"members": "alice"}, (None, frozenset(), "spec.members")),
    ],
)
def test_an_environment(spec, expected):
    facts = environment_facts({"metadata": {"name": "alice"}, "spec": spec})
    key, members, problem = expected
    assert (facts.name, facts.routing_key, facts.members) == ("alice", key, members)
    assert facts.problem.startswith(problem) and bool(facts.problem) is bool(problem)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "labels",
                    "match",
                    "context",
                    "applyTo",
                    "workloadSelector",
                    "configPatches",
                    "target",
                    "routingKey",
                    "members",
                ]
            ),
            part,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_nothing_that_custom_resources_may_hold_stops_the_reading(spec, status):
    document = {**session_document(), "spec": spec, "status": status}
    facts = session_facts(document)
    assert (facts.spec is None) is bool(facts.problem)
    envoy_filter_facts(document)
    assert environment_facts(document).name == "checkout-alice-1f2e3d"


def test_facts_are_values():
    facts = session_facts(session_document())
    assert facts == session_facts(session_document()) and replace(facts, uid="v") != facts
