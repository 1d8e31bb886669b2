import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.target.links import link_variables
from local_proxy.target.quantities import resource_text
from local_proxy.target.spec import Objects, Reference, environment, expand, object_data, pod_field, references
from local_proxy.target.volumes import File, files, is_below, mounts

POD = {
    "metadata": {
        "name": "checkout-1",
        "namespace": "shop",
        "labels": {"app": "checkout"},
        "annotations": {"a/b": 'x"y'},
    },
    "spec": {"nodeName": "node-1", "serviceAccountName": "checkout", "containers": []},
    "status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}], "hostIP": "10.1.0.1"},
}
SETTINGS, DATABASE = Reference("ConfigMap", "settings"), Reference("Secret", "db")
OBJECTS = Objects({SETTINGS: {"MODE": b"fast", "b.yaml": b"b: 1"}, DATABASE: {"password": b"p\xff"}})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)/$(B)", "1/2"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $ $(", "$A $ $("),
        ("$()", "$()"),
        ("a$", "a$"),
    ],
)
def test_references_are_expanded_as_a_kubelet_does(text, expanded):
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text(alphabet="ab(){} "))
def test_text_without_a_dollar_stays(text):
    assert expand(text, {"a": "x"}) == text


def test_the_environment_is_the_kubelets():
    container = {
        "name": "app",
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "CFG_"}],
        "env": [
            {"name": "PLAIN", "value": "$(CFG_MODE) at $(INVENTORY_SERVICE_HOST) $(LATER)"},
            {"name": "LATER", "value": "later"},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "INVENTORY_PORT", "value": "mine"},
            {"name": "NOTHING"},
        ],
        "resources": {"limits": {"cpu": "1.5"}},
    }
    assert references(container) == {SETTINGS, DATABASE}
    variables, left = environment(
        POD, container, OBJECTS, {"INVENTORY_SERVICE_HOST": "10.0.0.1", "INVENTORY_PORT": "x"}
    )
    assert left == []
    assert variables == {
        "INVENTORY_SERVICE_HOST": "10.0.0.1",
        "INVENTORY_PORT": "mine",
        "CFG_MODE": "fast",
        "CFG_b.yaml": "b: 1",
        "PLAIN": "fast at 10.0.0.1 $(LATER)",
        "LATER": "later",
        "PASSWORD": "p\udcff",
        "POD": "checkout-1",
        "CPU": "1500",
        "NOTHING": "",
    }


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"secretKeyRef": {"name": "no", "key": "k"}}, "variable X (Secret no: you may not read it)"),
        ({"secretKeyRef": {"name": "no", "key": "k", "optional": True}}, "variable X (Secret no: you may not read it)"),
        ({"secretKeyRef": {"name": "gone", "key": "k", "optional": True}}, None),
        ({"configMapKeyRef": {"name": "settings", "key": "no"}}, "variable X (ConfigMap settings has no no)"),
        ({"configMapKeyRef": {"name": "settings", "key": "no", "optional": True}}, None),
        ({"fieldRef": {"fieldPath": "spec.nope"}}, "variable X (there is no field spec.nope)"),
        ({"resourceFieldRef": {"resource": "limits.memory"}}, "variable X (limits.memory is not set: the node's size"),
        ({"fileKeyRef": {}}, "variable X (hairpin knows no fileKeyRef)"),
    ],
)
def test_what_cannot_be_had_is_left_out_and_named(source, told):
    why = {Reference("Secret", "no"): "you may not read it", Reference("Secret", "gone"): "there is none"}
    objects = Objects(OBJECTS.data, why, frozenset({Reference("Secret", "gone")}))
    variables, left = environment(POD, {"env": [{"name": "X", "valueFrom": source}]}, objects, {})
    assert variables == {}
    assert [str(one)[: len(told or "")] for one in left] == ([told] if told else [])


@pytest.mark.parametrize(
    ("reference", "resources", "text"),
    [
        ({"resource": "limits.cpu"}, {"limits": {"cpu": "500m"}}, "1"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, {"limits": {"memory": "1.5Gi"}}, "1536"),
        ({"resource": "limits.memory", "divisor": "0"}, {"limits": {"memory": "2e3"}}, "2000"),
        ({"resource": "requests.cpu"}, {}, "0"),
        ({"resource": "limits.cpu"}, {}, None),
    ],
)
def test_resources_are_rounded_up_to_their_divisor(reference, resources, text):
    assert resource_text(reference, {"resources": resources}) == text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metadata.labels['app']", "checkout"),
        ("metadata.labels['no']", ""),
        ("metadata.annotations", 'a/b="x\\"y"'),
        ("status.podIPs", "10.0.0.7,fd00::7"),
        ("status.hostIPs", "10.1.0.1"),
        ("spec.volumes", None),
    ],
)
def test_fields(path, text):
    assert pod_field(POD, path) == text


def test_services_are_told_of_as_a_kubelet_tells():
    ports = [{"name": "http-web", "port": 80}, {"port": 53, "protocol": "UDP"}]
    services = [
        {"metadata": {"name": "my-shop"}, "spec": {"clusterIP": "fd00::1", "ports": ports}},
        {"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": ports}},
    ]
    assert link_variables(services) == {
        "MY_SHOP_SERVICE_HOST": "fd00::1",
        "MY_SHOP_SERVICE_PORT": "80",
        "MY_SHOP_SERVICE_PORT_HTTP_WEB": "80",
        "MY_SHOP_PORT": "tcp://[fd00::1]:80",
        "MY_SHOP_PORT_80_TCP": "tcp://[fd00::1]:80",
        "MY_SHOP_PORT_80_TCP_PROTO": "tcp",
        "MY_SHOP_PORT_80_TCP_PORT": "80",
        "MY_SHOP_PORT_80_TCP_ADDR": "fd00::1",
        "MY_SHOP_PORT_53_UDP": "udp://[fd00::1]:53",
        "MY_SHOP_PORT_53_UDP_PROTO": "udp",
        "MY_SHOP_PORT_53_UDP_PORT": "53",
        "MY_SHOP_PORT_53_UDP_ADDR": "fd00::1",
    }


def test_binary_data_is_read():
    text = base64.b64encode(b"\x00\xff").decode()
    assert object_data({"kind": "Secret", "data": {"k": text}}) == {"k": b"\x00\xff"}
    assert object_data({"kind": "ConfigMap", "data": {"a": "ä"}, "binaryData": {"k": text}}) == {
        "a": "ä".encode(),
        "k": b"\x00\xff",
    }


def mounted(*entries, volumes):
    pod = {**POD, "spec": {**POD["spec"], "volumes": volumes}}
    container = {"name": "app", "volumeMounts": list(entries)}
    return files(pod, container, mounts(pod, container, {"WHICH": "b.yaml"}), OBJECTS)


def test_volumes_items_modes_parts_and_what_hides_what():
    volumes = [
        {"name": "settings", "configMap": {"name": "settings", "defaultMode": 0o440}},
        {"name": "db", "secret": {"secretName": "db", "items": [{"key": "password", "path": "in/pw", "mode": 0o400}]}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 700}},
                    {"downwardAPI": {"items": [{"path": "who", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    {"clusterTrustBundle": {"path": "x"}},
                ]
            },
        },
    ]
    found = mounted(
        {"name": "all", "mountPath": "/etc/app/all/"},
        {"name": "settings", "mountPath": "/etc/app"},
        {"name": "settings", "mountPath": "/etc/one.yaml", "subPathExpr": "$(WHICH)"},
        {"name": "db", "mountPath": "/db", "subPath": "in"},
        volumes=volumes,
    )
    assert found.files == {
        "/etc/app/MODE": File(b"fast", 0o440),
        "/etc/app/b.yaml": File(b"b: 1", 0o440),
        "/etc/one.yaml": File(b"b: 1", 0o440),
        "/db/pw": File(b"p\xff", 0o400),
        "/etc/app/all/who": File(b"checkout-1"),
    }
    assert [(one.path, one.audience, one.seconds) for one in found.tokens] == [("/etc/app/all/token", "vault", 700)]
    assert [str(one) for one in found.left] == ["clusterTrustBundle of /etc/app/all (hairpin knows no such volume)"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "", "a\0b", "."])
def test_a_path_that_leads_out_is_none(path):
    volumes = [{"name": "v", "configMap": {"name": "settings", "items": [{"key": "MODE", "path": path}]}}]
    found = mounted({"name": "v", "mountPath": "/etc/v"}, volumes=volumes).files
    assert all(made.startswith("/etc/v") and ".." not in made for made in found)
    if path != ".":
        assert not is_below(path)
        assert found == {}
