"""Who may do what, asked of a real API server: an installation's roles and its admission policy."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from hairpin.kubernetes.admission import POLICY
from hairpin.kubernetes.installation import AUTHORITY, CONTROLLER, DEVELOPER, SYSTEM, Installation, Published
from hairpin.kubernetes.objects import installation_objects
from hairpin.kubernetes.rbac import DEFINITIONS, developer_role
from tests.support.builds import MissingError
from tests.support.cluster.api_server import api_server as running_api_server
from tests.support.cluster.client import ApiError, Client
from tests.support.mesh import eventually

pytestmark = pytest.mark.timeout(180)  # the first test waits for the API server

SERVED, UNSERVED = "shop", "billing"
INSTALLATION = Installation(namespaces=(SERVED,))
ALICES = {"owner": "alice", "target": {"name": "checkout"}, "environment": "alice"}


@pytest.fixture(scope="module")
async def cluster():
    """An API server of its own, since an admission policy holds for everyone: hairpin installed, alice and bob developers."""
    try:
        async with running_api_server() as server:
            for name in ("istio-system", SERVED, UNSERVED):
                await server.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            await server.install_istio_crds()
            documents = installation_objects(INSTALLATION)
            definitions = [d for d in documents if d["kind"] == "CustomResourceDefinition"]
            await server.client.apply(*definitions)
            await server.established()
            await server.client.apply(*documents)
            for user in ("alice", "bob"):
                await server.kubectl(
                    *("create", "rolebinding", user, "-n", SERVED, f"--clusterrole={DEVELOPER}", f"--user={user}")
                )
            await eventually(lambda: judged(server), "the admission policy is in force")
            async with server.client_of("alice") as alice, server.client_of("bob") as bob:
                for user in (alice, bob):
                    question = ("create", "sessions", SERVED, "", "", "hairpin.dev")
                    await eventually(lambda user=user, question=question: may(user, *question), "developers may")
            yield server
    except MissingError as e:
        pytest.skip(str(e))


async def judged(server):
    """The API server takes note of a new policy a second after it has it; nothing that it takes until then is kept."""
    try:
        await server.client.create(session(), dry_run=True)
    except ApiError as refused:
        return refused.status == 403
    return False


@pytest.fixture
async def alice(cluster):
    async with cluster.client_of("alice") as client:
        yield client


@pytest.fixture
async def bob(cluster):
    async with cluster.client_of("bob") as client:
        yield client


@pytest.fixture
async def controller(cluster):
    """The controller's service account, by a token of it."""
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{CONTROLLER}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = (await cluster.client.request("POST", path, request))["status"]["token"]
    async with Client(cluster.server.url, cluster.server.ca, token) as client:
        yield client


def session(spec=ALICES, name="a", **metadata):
    return {
        "apiVersion": "hairpin.dev/v1alpha1",
        "kind": "Session",
        "metadata": {"name": name, "namespace": SERVED, **metadata},
        "spec": spec,
    }


@pytest.fixture
async def alices(cluster, alice):
    """A session of alice's."""
    yield await alice.create(session())
    await cluster.client.delete("Session", "a", SERVED)


@contextlib.contextmanager
def forbidden(message):
    with pytest.raises(ApiError) as refused:
        yield
    assert refused.value.status == 403
    assert message in refused.value.message


# Owners


async def test_nobody_makes_a_session_in_anothers_name(cluster, bob):
    with forbidden('spec.owner: "alice" is not you; write bob, who the API server says you are'):
        await bob.create(session())
    # Not even an operator: who holds requests can be believed.
    with forbidden('spec.owner: "alice" is not you; write admin'):
        await cluster.client.create(session())
    assert await cluster.client.list("Session", SERVED) == []


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"localPort": 1}},
        {"spec": {"certificateRequest": "-----BEGIN"}},
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"finalizers": ["example.com/held"]}},
    ],
    ids=str,
)
async def test_anothers_session_cannot_be_changed(alices, bob, change):
    with forbidden("the session can not be changed by you: it is alice’s, and you are bob"):
        await bob.patch("Session", "a", change, namespace=SERVED)


async def test_anothers_session_cannot_be_ended(alices, alice, bob):
    with forbidden("the session can not be ended by you: it is alice’s, and you are bob; ask alice to stop it"):
        await bob.delete("Session", "a", SERVED)
    with forbidden('cannot deletecollection resource "sessions"'):
        await bob.delete_all("Session", SERVED)
    assert (await bob.get("Session", "a", SERVED))["metadata"]["uid"] == alices["metadata"]["uid"]
    await alice.delete("Session", "a", SERVED)
    assert await bob.get("Session", "a", SERVED) is None


async def test_the_owner_keeps_it_up_to_date(alices, alice):
    changed = await alice.patch("Session", "a", {"spec": {"localPort": 8080}}, namespace=SERVED)
    assert changed["spec"]["localPort"] == 8080


async def test_a_session_is_in_its_targets_namespace(alice):
    elsewhere = {**ALICES, "target": {"name": "checkout", "namespace": UNSERVED}}
    message = (
        f'spec.target.namespace: "{UNSERVED}" is not the session\'s; make the session in the namespace of its target'
    )
    with pytest.raises(ApiError) as refused:
        await alice.create(session(elsewhere))
    assert message in refused.value.message


async def test_the_status_is_the_controllers(alices, alice, bob, controller):
    for user in (alice, bob):
        with forbidden('cannot patch resource "sessions/status"'):
            await user.patch("Session", "a", {"status": {"phase": "Active"}}, namespace=SERVED, subresource="status")
    kept = await controller.patch(
        "Session", "a", {"status": {"phase": "Pending"}}, namespace=SERVED, subresource="status"
    )
    assert kept["status"] == {"phase": "Pending"}


async def test_the_controller_ends_sessions(alices, cluster, controller):
    await controller.delete("Session", "a", SERVED)
    assert await cluster.client.get("Session", "a", SERVED) is None


async def test_an_operator_ends_sessions(alices, cluster):
    await cluster.kubectl(
        *("create", "role", "ends-sessions", "-n", SERVED, "--resource=sessions.hairpin.dev"),
        "--verb=get,list,delete,deletecollection",
    )
    await cluster.kubectl("create", "rolebinding", "olga", "-n", SERVED, "--role=ends-sessions", "--user=olga")
    async with cluster.client_of("olga") as olga:
        # The API server takes note of a new binding a little after it has it.
        await eventually(lambda: may(olga, "delete", "sessions", SERVED, "", "", "hairpin.dev"), "olga may")
        await olga.delete("Session", "a", SERVED)
    assert await cluster.client.get("Session", "a", SERVED) is None


async def test_a_namespace_goes_with_its_sessions_under_the_policy(cluster):
    namespace = await cluster.new_namespace()
    await cluster.kubectl("create", "rolebinding", "a", "-n", namespace, f"--clusterrole={DEVELOPER}", "--user=alice")
    document = session(namespace=namespace)
    async with cluster.client_of("alice") as alice:
        await eventually(lambda: may(alice, "create", "sessions", namespace, "", "", "hairpin.dev"), "alice may")
        await alice.create(document)
    await cluster.client.delete("Namespace", namespace)
    await cluster.client.wait_gone("Namespace", namespace)


# The developers' role


async def rules_of(client, namespace):
    """What a user may do in a namespace, beside what everyone may: as (group, resource, verb, name)."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = await client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    assert not answer["status"]["incomplete"]
    return {
        (group, resource, verb, name)
        for rule in answer["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or ("*",)
        if not resource.startswith("selfsubject")
    }


async def may(client, verb, resource, namespace, *more):
    attributes = {"verb": verb, "resource": resource, "namespace": namespace}
    attributes |= dict(zip(("name", "subresource", "group"), more, strict=False))
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return answer["status"]["allowed"]


async def test_a_developer_may_hold_sessions_and_reach_agents_and_nothing_else(alice):
    agents = [f"hairpin-agent-{number}" for number in range(10)]
    assert await rules_of(alice, SERVED) == {
        *(
            ("hairpin.dev", "sessions", verb, "*")
            for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
        ),
        *(
            ("hairpin.dev", resource, verb, "*")
            for resource in ("environments", "egresspolicies")
            for verb in ("get", "list", "watch")
        ),
        *(("", "pods", "get", agent) for agent in agents),
        *(("", "pods/portforward", verb, agent) for agent in agents for verb in ("create", "get")),
    }
    assert await rules_of(alice, UNSERVED) == set()
    assert await rules_of(alice, SYSTEM) == set()


async def test_attempts_at_more_are_refused(cluster, alice):
    pod = {"containers": [{"name": "app", "image": "app"}]}
    await cluster.client.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "checkout-0"}, "spec": pod}, namespace=SERVED
    )
    pods = f"/api/v1/namespaces/{SERVED}/pods"
    filters = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "x"}}
    with forbidden('cannot create resource "envoyfilters"'):
        await alice.create({**filters, "spec": {"configPatches": []}}, namespace=SERVED)
    with forbidden('cannot list resource "secrets"'):
        await alice.list("Secret", SERVED)
    with forbidden('cannot list resource "pods"'):
        await alice.list("Pod", SERVED)
    with forbidden('cannot create resource "pods/exec"'):
        await alice.request("POST", f"{pods}/hairpin-agent-0/exec", query={"command": "sh", "stdin": "true"})
    with forbidden('cannot create resource "pods/portforward"'):
        await alice.request("POST", f"{pods}/checkout-0/portforward", query={"ports": "8080"})
    with forbidden('cannot create resource "sessions"'):
        await alice.create(session(namespace=UNSERVED))


async def test_the_way_to_an_agent_is_open(cluster, alice):
    # Without a node it leads nowhere, but that is what comes after the permission.
    await cluster.client.wait_for("Pod", "hairpin-agent-0", bool, namespace=SERVED)
    path = f"/api/v1/namespaces/{SERVED}/pods/hairpin-agent-0/portforward"
    for method in ("POST", "GET"):
        with pytest.raises(ApiError, match="does not have a host assigned"):
            await alice.request(method, path, query={"ports": "9443"})


async def test_with_a_published_address_there_is_no_port_forward_at_all():
    role = developer_role(replace(INSTALLATION, published=Published("agents.example.com")))
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"hairpin.dev"}


# The controller


async def test_the_controller_reaches_into_served_namespaces_alone(controller):
    everywhere = {
        ("hairpin.dev", "environments"),
        ("authentication.k8s.io", "tokenreviews"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    }
    assert {rule[:2] for rule in await rules_of(controller, UNSERVED)} == everywhere
    root = await rules_of(controller, "istio-system")
    assert {rule[:2] for rule in root} == everywhere | {
        ("networking.istio.io", "envoyfilters"),
        ("networking.istio.io", "sidecars"),
        ("apps", "deployments"),
    }
    assert {rule[2] for rule in root if rule[:2] not in everywhere} == {"get", "list", "watch"}
    named = {rule[3] for rule in root if rule[0] in ("apiextensions.k8s.io", "admissionregistration.k8s.io")}
    assert named == {*DEFINITIONS, POLICY}
    served = {rule[:2] for rule in await rules_of(controller, SERVED)} - everywhere
    assert served == {
        ("hairpin.dev", "sessions"),
        ("hairpin.dev", "sessions/status"),
        ("hairpin.dev", "egresspolicies"),
        ("networking.istio.io", "envoyfilters"),
        ("networking.istio.io", "sidecars"),
        ("", "pods"),
        ("", "services"),
        ("", "configmaps"),
        ("apps", "deployments"),
        ("apps", "statefulsets"),
        ("apps", "daemonsets"),
        ("apps", "replicasets"),
        ("argoproj.io", "rollouts"),
    }


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (("get", "secrets", SERVED), False),
        (("get", "secrets", SYSTEM, "other"), False),
        (("get", "secrets", SYSTEM, AUTHORITY), True),
        (("create", "secrets", SYSTEM), True),
        (("create", "secrets", SERVED), False),
        (("patch", "configmaps", SERVED, AUTHORITY), True),
        (("patch", "configmaps", SERVED, "other"), False),
        (("create", "pods", SERVED), False),
        (("update", "pods", SERVED), False),
        (("create", "pods", SERVED, "", "exec"), False),
        (("create", "pods", SERVED, "", "portforward"), False),
        (("update", "deployments", SERVED, "", "", "apps"), False),
        (("create", "sessions", SERVED, "", "", "hairpin.dev"), False),
        (("update", "leases", SYSTEM, CONTROLLER, "", "coordination.k8s.io"), True),
        (("update", "leases", SYSTEM, "other", "", "coordination.k8s.io"), False),
        (("create", "envoyfilters", "istio-system", "", "", "networking.istio.io"), False),
        (("create", "envoyfilters", UNSERVED, "", "", "networking.istio.io"), False),
        (("create", "envoyfilters", SERVED, "", "", "networking.istio.io"), True),
        (("update", "sidecars", SERVED, "", "", "networking.istio.io"), False),
        (("update", "deployments", "istio-system", "", "", "apps"), False),
        (("create", "tokenreviews", "", "", "", "authentication.k8s.io"), True),
        (("impersonate", "users", "", "alice"), False),
        (("escalate", "clusterroles", "", "", "", "rbac.authorization.k8s.io"), False),
    ],
    ids=str,
)
async def test_the_controller_may(controller, question, answer):
    assert await may(controller, *question) is answer


async def test_the_controller_mends_its_authoritys_config_map(cluster, controller):
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": AUTHORITY, "namespace": SERVED},
        "data": {"ca.pem": "-----BEGIN"},
    }
    await controller.apply(document, manager=CONTROLLER)
    await cluster.client.delete("ConfigMap", AUTHORITY, SERVED)
    await controller.apply(document, manager=CONTROLLER)
    assert (await cluster.client.get("ConfigMap", AUTHORITY, SERVED))["data"] == document["data"]


async def test_an_agents_account_may_nothing(cluster):
    path = f"/api/v1/namespaces/{SERVED}/serviceaccounts/hairpin-agent/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = (await cluster.client.request("POST", path, request))["status"]["token"]
    async with Client(cluster.server.url, cluster.server.ca, token) as agent:
        assert await rules_of(agent, SERVED) == set()


async def test_the_owner_may_end_it_in_the_foreground(alices, cluster, alice):
    """The last one here: the garbage collector takes note of a kind that is new within 30 s."""
    path = f"/apis/hairpin.dev/v1alpha1/namespaces/{SERVED}/sessions/a"
    await alice.request("DELETE", path, {"propagationPolicy": "Foreground"})
    await cluster.client.wait_gone("Session", "a", namespace=SERVED)  # by Kubernetes' garbage collector
