"""Who may make, change and end a Session: an admission policy, since RBAC knows no owners.

The owner that a session names is who the API server says makes it. Changes and the end are its owner's, and those's who may
delete all sessions of the namespace at once (`deletecollection`): operators, hairpin's controller, Kubernetes' own when it
removes a namespace. The status is a resource of its own; that it is the controller's alone is RBAC's.
"""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes.installation import metadata
from hairpin.kubernetes.kinds import ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS, SESSIONS

JsonObject = dict[str, Any]

POLICY = "hairpin-session-owner"
"""Of the policy and its binding. The controller signs no certificate where they are missing."""

_SYSTEM_ACCOUNTS = "system:serviceaccounts:kube-system"
_MAY_END_ALL = (
    f"authorizer.group('{SESSIONS.group}').resource('{SESSIONS.plural}').namespace(request.namespace)"
    ".check('deletecollection').allowed()"
)


def admission_objects() -> list[JsonObject]:
    """The policy and its binding."""
    return [_policy(), _binding()]


def _policy() -> JsonObject:
    owner = "'it is ' + variables.owner + '’s, and you are ' + request.userInfo.username"
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [SESSIONS.group],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                    "resources": [SESSIONS.plural],
                }
            ]
        },
        "variables": [
            {
                "name": "owner",
                "expression": "request.operation == 'CREATE' "
                "? (has(object.spec.owner) ? object.spec.owner : '') "
                ": (has(oldObject.spec.owner) ? oldObject.spec.owner : '')",
            },
            {
                # Kubernetes' garbage collector, which ends what a foreground deletion has begun, is among the latter.
                "name": "trusted",
                "expression": f"{_MAY_END_ALL} || '{_SYSTEM_ACCOUNTS}' in request.userInfo.groups",
            },
        ],
        "validations": [
            {
                "expression": "request.operation != 'CREATE' || variables.owner == request.userInfo.username",
                "messageExpression": "'spec.owner: \"' + variables.owner + '\" is not you; write ' "
                "+ request.userInfo.username + ', who the API server says you are'",
                "reason": "Forbidden",
            },
            {
                "expression": "request.operation != 'UPDATE' || variables.owner == request.userInfo.username "
                "|| variables.trusted",
                "messageExpression": f"'the session can not be changed by you: ' + {owner}",
                "reason": "Forbidden",
            },
            {
                "expression": "request.operation != 'DELETE' || variables.owner == request.userInfo.username "
                "|| variables.trusted",
                "messageExpression": f"'the session can not be ended by you: ' + {owner} "
                "+ '; ask ' + variables.owner + ' to stop it'",
                "reason": "Forbidden",
            },
            {
                "expression": "request.operation == 'DELETE' || !has(object.spec.target) "
                "|| !has(object.spec.target.namespace) || object.spec.target.namespace == request.namespace",
                "messageExpression": "'spec.target.namespace: \"' + object.spec.target.namespace "
                "+ '\" is not the session\\'s; make the session in the namespace of its target'",
                "reason": "Invalid",
            },
        ],
    }
    return {
        "apiVersion": ADMISSION_POLICIES.api_version,
        "kind": ADMISSION_POLICIES.name,
        "metadata": metadata(POLICY),
        "spec": spec,
    }


def _binding() -> JsonObject:
    return {
        "apiVersion": ADMISSION_POLICY_BINDINGS.api_version,
        "kind": ADMISSION_POLICY_BINDINGS.name,
        "metadata": metadata(POLICY),
        "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
    }
