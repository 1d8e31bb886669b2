"""The custom resources Session, Environment and EgressPolicy: their definitions, made from the model's shapes.

What can be refused at the door is: by the schema, and by CEL rules whose messages say what is wrong and what would be right.
The rest (what RE2 takes, how large a match is as a whole, whose the requests are) is the controller's, in a condition.
"""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes.installation import metadata
from hairpin.kubernetes.kinds import EGRESS_POLICIES, ENVIRONMENTS, SESSIONS, Kind
from hairpin.kubernetes.structural import cel_text, int_or_string, rule, structural, structural_match
from hairpin.model.egress import POLICY_NAME
from hairpin.model.egress_json import EGRESS_POLICY_SPEC
from hairpin.model.environment_json import ENVIRONMENT_SPEC
from hairpin.model.names import LABEL, PORT_NAME
from hairpin.model.session_shapes import SPEC, STATUS, TARGET
from hairpin.model.shape import Field, JsonSchema, Record
from hairpin.model.target import PORT

JsonObject = dict[str, Any]
_FIXED = ("owner", "target", "environment", "match", "mode")
"""What a session is: another one is another session."""
_TARGET_FIELDS_OF_THEIR_OWN = ("port",)
_SPEC_FIELDS_OF_THEIR_OWN = ("target", "match")


def custom_resource_definitions() -> list[JsonObject]:
    """The three definitions."""
    return [session_definition(), environment_definition(), egress_policy_definition()]


def session_definition() -> JsonObject:
    """`Session`: one developer's claim, with its status apart."""
    columns = [
        _column("Owner", ".spec.owner", "Whose it is"),
        _column("Target", ".spec.target.name", "What it takes requests from"),
        _column("Environment", ".spec.environment", "Whose requests it takes"),
        _column("Mode", ".spec.mode", "What it does"),
        _column("Phase", ".status.phase", "Where it stands"),
        _column("Age", ".metadata.creationTimestamp", "Since when", type_="date"),
        _column("Resolved", ".status.resolvedTarget", "The target as the mesh knows it", priority=1),
        _column("Local port", ".spec.localPort", "Where the process listens", type_="integer", priority=1),
        _column("Last seen", ".status.lastSeen", "When its tunnel was last seen up", type_="date", priority=1),
    ]
    label = cel_text(f"^(?:{LABEL.pattern})$")
    named = rule(
        f"size(self.metadata.name) <= {LABEL.most} && self.metadata.name.matches({label})",
        f"metadata.name is not {LABEL.what}; {LABEL.remedy}",
    )
    schema: JsonSchema = {
        "type": "object",
        "description": "A developer's claim on a target's requests, or on the mesh's egress alone.",
        "required": ["spec"],
        "properties": {"spec": _session_spec(), "status": structural(STATUS, spoken=False)},
        "x-kubernetes-validations": [named],
    }
    return _definition(SESSIONS, ["hps"], schema, columns, status=True)


def environment_definition() -> JsonObject:
    """`Environment`: what operators say of a feature environment."""
    columns = [
        _column("Routing key", ".spec.routingKey", "What marks its requests"),
        _column("Description", ".spec.description", "What it is for"),
        _column("Age", ".metadata.creationTimestamp", "Since when", type_="date"),
    ]
    spec = structural(ENVIRONMENT_SPEC, spoken=False)
    message = "names more than one carrier, or none; write one of header, baggage, tracestate, as in {header: x-env}"
    key = spec["properties"]["routingKey"]
    for bound in ("minProperties", "maxProperties"):
        key.pop(bound)
    one = " + ".join(f"(has(self.{carrier}) ? 1 : 0)" for carrier in key["properties"])
    key["x-kubernetes-validations"] = [rule(f"{one} == 1", message)]
    schema: JsonSchema = {
        "type": "object",
        "description": "A feature environment; one that has no object has the mesh's routing key and is everyone's.",
        "properties": {"spec": spec},
    }
    return _definition(ENVIRONMENTS, ["hpe"], schema, columns)


def egress_policy_definition() -> JsonObject:
    """`EgressPolicy`: where a namespace's sessions may connect to; the one that is called `default` counts."""
    columns = [
        _column("Default", ".spec.default", "What holds where no rule does"),
        _column("Age", ".metadata.creationTimestamp", "Since when", type_="date"),
    ]
    named = rule(
        f"self.metadata.name == '{POLICY_NAME}'",
        f"metadata.name is not {POLICY_NAME}; call it {POLICY_NAME}: a namespace has one policy",
    )
    spec = structural(EGRESS_POLICY_SPEC, spoken=False)
    both = "has hosts and cidrs: a rule judges the name asked for or the addresses, not both; make two rules of it"
    spec["properties"]["rules"]["items"]["x-kubernetes-validations"] = [
        rule("!has(self.hosts) || !has(self.cidrs) || size(self.hosts) == 0 || size(self.cidrs) == 0", both)
    ]
    schema: JsonSchema = {
        "type": "object",
        "description": "Where the connections of a namespace's sessions may lead. The first rule that holds decides.",
        "required": ["spec"],
        "properties": {"spec": spec},
        "x-kubernetes-validations": [named],
    }
    return _definition(EGRESS_POLICIES, ["hpp"], schema, columns)


def _session_spec() -> JsonSchema:
    schema = structural(_without(SPEC, _SPEC_FIELDS_OF_THEIR_OWN))
    target = structural(_without(TARGET, _TARGET_FIELDS_OF_THEIR_OWN))
    target["properties"]["port"] = _port()
    target["x-kubernetes-validations"] = [
        rule(
            f"self.kind != 'service' || self.name.matches({cel_text(f'^(?:{LABEL.pattern})$')})",
            f"is not what a Service can be called; {LABEL.remedy}",
            field=".name",
        )
    ]
    schema["properties"] |= {"target": target, "match": structural_match()}
    schema["x-kubernetes-validations"] = [*_rules_between_fields(), *map(_fixed, _FIXED)]
    return schema


def _port() -> JsonSchema:
    text = {**PORT_NAME.schema(), "not": {"pattern": "^[0-9]+$"}}
    otherwise = f"is not {PORT_NAME.what}; {PORT_NAME.remedy}, or a number without quotes"
    return int_or_string(PORT.least, PORT.most, text, otherwise)


def _rules_between_fields() -> list[JsonSchema]:
    """What `check_spec` says, and who the owner must be."""
    egress = "self.mode == 'egress'"
    meaningless = "has no meaning in mode egress, which takes no requests; leave it out, or use mode steal"
    missing = "FieldValueRequired"
    owner = "is missing; write your own user name, as `kubectl auth whoami` shows it"
    everyone = "is missing; name an environment or a match: without either the session would take everyone's requests"
    return [
        rule("has(self.owner) && self.owner != ''", owner, field=".owner", reason=missing),
        rule(
            f"{egress} || has(self.target)",
            "is missing; name a target, or use mode egress",
            field=".target",
            reason=missing,
        ),
        rule(f"{egress} || has(self.environment) || has(self.match)", everyone, field=".environment", reason=missing),
        rule(f"!({egress}) || !has(self.target)", meaningless, field=".target"),
        rule(f"!({egress}) || !has(self.match)", meaningless, field=".match"),
    ]


def _fixed(name: str) -> JsonSchema:
    same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
    return rule(same, "can't be changed; end the session and make another", field=f".{name}")


def _without(shape: Record[Any], names: tuple[str, ...]) -> Record[Any]:
    fields: dict[str, Field] = {name: entry for name, entry in shape.fields.items() if name not in names}
    return Record(fields=fields, build=shape.build)


def _column(name: str, path: str, description: str, *, type_: str = "string", priority: int = 0) -> JsonObject:
    column = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def _definition(
    kind: Kind, short_names: list[str], schema: JsonSchema, columns: list[JsonObject], *, status: bool = False
) -> JsonObject:
    version: JsonObject = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    if status:
        version["subresources"] = {"status": {}}
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata(f"{kind.plural}.{kind.group}"),
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": short_names,
                "categories": ["hairpin"],
            },
            "versions": [version],
        },
    }
