"""The Helm chart, made from the objects themselves: an installation of marks, whose YAML has each mark replaced by a template.

What differs with a published address is made twice, and stands in an `if`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import hairpin
from hairpin.kubernetes import pods
from hairpin.kubernetes.installation import Installation, Published, identity_agent
from hairpin.kubernetes.objects import cluster_objects, namespace_objects
from hairpin.kubernetes.yaml_text import one_yaml_text
from hairpin.model.environment import Carrier, RoutingKey

JsonObject = dict[str, Any]

_NAMESPACE, _IDENTITY = "mark-namespace", "mark-identity"
_AGENTS, _CONTROLLERS, _TUNNEL, _EGRESS = 70001, 70002, 70003, 70004
_MARKED = Installation(
    namespaces=(_NAMESPACE,),
    image="mark-image",
    identities=(_IDENTITY,),
    agents=_AGENTS,
    controllers=_CONTROLLERS,
    trust_domain="mark-trust-domain",
    cluster_domain="mark-cluster-domain",
    root_namespace="mark-root-namespace",
    routing_key=RoutingKey(Carrier.HEADER, "mark-routing-key"),
)
_PUBLISHED = replace(_MARKED, published=Published("mark-host", _TUNNEL, _EGRESS))
_VALUES = {
    "mark-image": "{{ $.Values.image }}",
    "mark-trust-domain": "{{ $.Values.trustDomain }}",
    "mark-cluster-domain": "{{ $.Values.clusterDomain }}",
    "mark-root-namespace": "{{ $.Values.rootNamespace }}",
    "delivery: inbound": "delivery: {{ $.Values.delivery }}",
    "header: mark-routing-key": "{{ $.Values.routingKey | toYaml | trim }}",
    "mark-host": "{{ $.Values.publishedAddress.host | quote }}",
    str(_AGENTS): "{{ $.Values.agents }}",
    str(_CONTROLLERS): "{{ $.Values.controllers }}",
    str(_TUNNEL): "{{ $.Values.publishedAddress.tunnelPort }}",
    str(_EGRESS): "{{ $.Values.publishedAddress.egressPort }}",
}
_SETTINGS_DIGEST = (
    "{{ list $.Values.namespaces $.Values.trustDomain $.Values.clusterDomain $.Values.rootNamespace"
    " $.Values.routingKey $.Values.delivery $.Values.publishedAddress | toJson | sha256sum | trunc 16 }}"
)
_NEEDED = (
    "{{- if not $.Values.namespaces }}\n"
    '{{- fail "namespaces: is missing; name those whose workloads developers take over" }}\n'
    "{{- end }}\n"
    '{{- if not (has $.Values.delivery (list "inbound" "outbound")) }}\n'
    '{{- fail "delivery: the chart knows inbound and outbound; for a waypoint use hairpin install --dry-run" }}\n'
    "{{- end }}\n"
)


def chart_files() -> dict[str, str]:
    """The chart's files, by path."""
    return {
        "Chart.yaml": one_yaml_text(
            {
                "apiVersion": "v2",
                "name": "hairpin",
                "description": "Feature environments' requests, answered by developers' own machines",
                "type": "application",
                "version": hairpin.__version__,
                "appVersion": hairpin.__version__,
                "kubeVersion": ">=1.30.0-0",
            }
        ),
        "values.yaml": _values(),
        "templates/cluster.yaml": _NEEDED + _variants(cluster_objects(_MARKED), cluster_objects(_PUBLISHED)),
        "templates/namespaces.yaml": _namespaces(),
    }


def _values() -> str:
    usual = Installation(namespaces=())
    published = Published("")
    return f"""\
# The namespaces whose workloads developers take over; one at least.
namespaces: []
image: {usual.image}
# Service accounts, the same in each namespace, under which agents serve egress: sessions may have their identity.
identities: []
# Replicas of each agent, 10 at most, and of the controller.
agents: {usual.agents}
controllers: {usual.controllers}
# Where laptops reach agents; without a host they come through the API server's port-forward.
# {{pod}} and {{namespace}} in the host are replaced.
publishedAddress:
  host: ""
  tunnelPort: {published.tunnel_port}
  egressPort: {published.egress_port}
trustDomain: {usual.trust_domain}
clusterDomain: {usual.cluster_domain}
# Istio's: whose EnvoyFilters hold for the whole mesh.
rootNamespace: {usual.root_namespace}
# Who steers: inbound (the target's own sidecars) or outbound (its callers').
delivery: {usual.delivery.value}
# What marks a feature environment's requests: a header, or a member of baggage or tracestate.
routingKey:
  header: {usual.routing_key.name}
"""


def _namespaces() -> str:
    objects, published = namespace_objects(_MARKED, _NAMESPACE), namespace_objects(_PUBLISHED, _NAMESPACE)
    of_identity = [identity_agent(_IDENTITY) == document["metadata"]["name"] for document in objects]
    common = _variants(*([d for d, one in zip(o, of_identity, strict=True) if not one] for o in (objects, published)))
    per_account = _variants(*([d for d, one in zip(o, of_identity, strict=True) if one] for o in (objects, published)))
    inner = f"{{{{- range $identity := $.Values.identities }}}}\n{per_account}{{{{- end }}}}\n"
    text = (common + inner).replace(_IDENTITY, "{{ $identity }}").replace(_NAMESPACE, "{{ $namespace }}")
    return f"{{{{- range $namespace := $.Values.namespaces }}}}\n{text}{{{{- end }}}}\n"


def _variants(usual: list[JsonObject], published: list[JsonObject]) -> str:
    text = ""
    for one, other in zip(map(_template, usual), map(_template, published), strict=True):
        if one == other:
            text += one
        else:
            text += f"{{{{- if $.Values.publishedAddress.host }}}}\n{other}{{{{- else }}}}\n{one}{{{{- end }}}}\n"
    return text


def _template(document: JsonObject) -> str:
    text = "---\n" + one_yaml_text(document)
    for mark, template in _VALUES.items():
        text = text.replace(mark, template)
    if document["metadata"].get("namespace") != _NAMESPACE:
        text = re.sub(rf"^( *)- {_NAMESPACE}\n", _each("namespaces", r"\1- {{ . }}\n"), text, flags=re.MULTILINE)
        of_identity = re.compile(rf"(?:^ *- {identity_agent(_IDENTITY)}-\d+\n)+", re.MULTILINE)
        text = of_identity.sub(lambda m: _each("identities", m[0].replace(_IDENTITY, "{{ . }}")), text)
        text = re.sub(rf"{re.escape(pods.SETTINGS)}: .*", lambda _: f"{pods.SETTINGS}: {_SETTINGS_DIGEST}", text)
    return text


def _each(values: str, lines: str) -> str:
    return f"{{{{- range $.Values.{values} }}}}\n{lines}{{{{- end }}}}\n"
