"""manifests/ is what the objects say, and what the objects say is what the programs read."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from agent.settings import Role, settings_of
from hairpin.errors import InvalidFieldError
from hairpin.kubernetes import manifests
from hairpin.kubernetes.agents import agent_settings
from hairpin.kubernetes.installation import OURS, SYSTEM, USER, Installation, Published, check_installation
from hairpin.kubernetes.objects import installation_objects
from hairpin.kubernetes.yaml_text import yaml_text
from hairpin.model.environment import Carrier, RoutingKey
from xds_server.delivery.istio.world import PublishedAddress
from xds_server.server.kubernetes.settings import settings_of as controller_settings_of

ROOT = Path(__file__).parents[4]
FULL = Installation(
    namespaces=("shop", "billing"),
    identities=("checkout",),
    published=Published("{pod}.{namespace}.example.com", 1, 2),
    trust_domain="example.com",
    cluster_domain="cluster.example",
    root_namespace="istio-config",
    routing_key=RoutingKey(Carrier.BAGGAGE, "env"),
)
OBJECTS = installation_objects(FULL)


def find(kind, name, namespace=""):
    [found] = [
        d
        for d in OBJECTS
        if (d["kind"], d["metadata"]["name"], d["metadata"].get("namespace", "")) == (kind, name, namespace)
    ]
    return found


def test_the_folder_is_current():
    folder = ROOT / "manifests"
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.yaml")}
    assert found == manifests.manifest_files(), "run `make manifests`"


def test_writing_it_removes_what_is_no_longer_in_it(tmp_path):
    stale = tmp_path / "overlays" / "old" / "kustomization.yaml"
    stale.parent.mkdir(parents=True)
    stale.touch()
    manifests.write(tmp_path)
    assert not stale.exists()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")} == set(manifests.manifest_files())


def test_everything_is_labelled_and_named_once():
    names = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in OBJECTS]
    assert len(names) == len(set(names)) == 57
    assert all(d["metadata"]["labels"].items() >= OURS.items() for d in OBJECTS)


def test_yaml_reads_as_it_was_written():
    assert list(yaml.safe_load_all(yaml_text(OBJECTS))) == OBJECTS


def test_the_controller_reads_its_settings():
    text = find("ConfigMap", "hairpin-controller", SYSTEM)["data"]["controller.yaml"]
    settings = controller_settings_of(yaml.safe_load(text))
    assert settings.namespaces == {"shop", "billing"}
    assert settings.trust_domain == "example.com"
    assert settings.cluster_domain == "cluster.example"
    assert settings.root_namespace == "istio-config"
    assert settings.routing_key == RoutingKey(Carrier.BAGGAGE, "env")
    assert settings.published == PublishedAddress(host="{pod}.{namespace}.example.com", tunnel_port=1, egress_port=2)
    [container] = find("Deployment", "hairpin-controller", SYSTEM)["spec"]["template"]["spec"]["containers"]
    assert {port["containerPort"] for port in container["ports"]} == {settings.api.port, settings.xds.port}


def test_the_agents_read_theirs():
    environment = {
        "POD_NAME": "hairpin-agent-1",
        "POD_NAMESPACE": "shop",
        "POD_IPS": "10.0.0.1,fd00::1",
        "HOST_IPS": "10.9.0.1",
    }
    text = find("ConfigMap", "hairpin-agent", "shop")["data"]["agent.yaml"]
    steering = settings_of(yaml.safe_load(text), environment)
    assert (steering.role, steering.name, steering.namespace) == (Role.STEER, "hairpin-agent-1", "shop")
    text = find("ConfigMap", "hairpin-agent-as-checkout", "shop")["data"]["agent.yaml"]
    egress = settings_of(yaml.safe_load(text), environment)
    assert (egress.role, egress.steer, egress.tunnel) == (Role.EGRESS, None, None)
    for name, settings in (("hairpin-agent", steering), ("hairpin-agent-as-checkout", egress)):
        [container] = find("StatefulSet", name, "shop")["spec"]["template"]["spec"]["containers"]
        assert {variable["name"] for variable in container["env"]} == environment.keys()
        listening = {a.port for a in (settings.steer, settings.tunnel, settings.egress, settings.ready) if a}
        assert {port["containerPort"] for port in container["ports"]} == listening
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for path in (settings.directory, settings.control_plane.authority, settings.control_plane.token_file):
            assert any(path.is_relative_to(mount) for mount in mounts)


def test_the_agents_service_takes_the_steering_ones_alone():
    selector = find("Service", "hairpin-agent", "shop")["spec"]["selector"].items()
    assert selector <= find("StatefulSet", "hairpin-agent", "shop")["spec"]["template"]["metadata"]["labels"].items()
    other = find("StatefulSet", "hairpin-agent-as-checkout", "shop")["spec"]["template"]
    assert not selector <= other["metadata"]["labels"].items()
    assert other["spec"]["serviceAccountName"] == "checkout"


@pytest.mark.parametrize("namespace", FULL.namespaces)
def test_sidecars_are_told_of_ready_agents_alone_and_prefer_none(namespace):
    spec = find("DestinationRule", "hairpin-agent", namespace)["spec"]
    assert spec["host"] == f"hairpin-agent.{namespace}.svc.cluster.example"
    outliers = spec["trafficPolicy"]["outlierDetection"]
    assert outliers.pop("minHealthPercent") > 0  # else istiod sends those that are not ready
    assert set(outliers.values()) == {0}  # no error ejects
    # Outlier detection would give the agents of other zones a priority of their own, where a repetition would end.
    assert spec["trafficPolicy"]["loadBalancer"]["localityLbSetting"] == {"enabled": False}


def test_programs_have_the_flags_that_their_containers_give():
    for kind, name, namespace in (
        ("Deployment", "hairpin-controller", SYSTEM),
        ("StatefulSet", "hairpin-agent", "shop"),
    ):
        [container] = find(kind, name, namespace)["spec"]["template"]["spec"]["containers"]
        missing = [argument.replace("/etc/hairpin", "/nonexistent") for argument in container["args"]]
        done = subprocess.run([sys.executable, "-m", *missing], capture_output=True, text=True, timeout=50, check=False)
        # They got as far as their settings.
        assert done.returncode == 3, done.stderr
        assert "/nonexistent/" in done.stderr


def test_the_dockerfile_runs_what_the_manifests_run():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]
    stages = [rest.split() for word, rest in steps if word == "FROM"]
    assert [stage[0].partition("@")[0].partition(":")[0] for stage in stages] == ["python", "python"]
    [entry] = [yaml.safe_load(rest) for word, rest in steps if word == "ENTRYPOINT"]
    assert entry == ["python", "-m"]
    [user] = [rest for word, rest in steps if word == "USER"]
    assert user == f"{USER}:{USER}"
    copied = [rest.split()[:-1] for word, rest in steps if word == "COPY" and not rest.startswith("--from")]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists(), path
    # What the wheel is made of is there.
    assert {"hairpin", "xds_server", "agent", "local_proxy", "examples"} <= {
        p.strip("/") for paths in copied for p in paths
    }


def test_the_wheel_has_what_the_image_runs(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True, timeout=50)
    [wheel] = tmp_path.glob("hairpin-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"xds_server/__main__.py", "agent/__main__.py", "hairpin/kubernetes/objects.py"} <= names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"namespaces": ("Shop",)}, "--namespace: 'Shop' is not a DNS label"),
        ({"namespaces": ("shop", "shop")}, "--namespace is given twice for one namespace; name each once"),
        ({"namespaces": (SYSTEM,)}, f"--namespace: '{SYSTEM}' is no namespace of applications"),
        ({"identities": ("x" * 50,)}, "is too long for a pod's name; use a shorter account"),
        ({"agents": 11}, "--agents: 11 is out of range; use 1 to 10"),
        ({"controllers": 0}, "--controllers: 0 is out of range; use 1 at least"),
        (
            {"published": Published("agents.example.com")},
            "--published-address: 'agents.example.com' is one address for several pods; write {pod} into it",
        ),
        (
            {"published": Published("agents.example.com"), "agents": 1, "identities": ("checkout",)},
            "or use --agents 1, and no --identity",
        ),
        (
            {"published": Published("{pod}.example.com"), "namespaces": ("shop", "billing")},
            "is one address for the pods of several namespaces; write {namespace} into it too",
        ),
    ],
    ids=str,
)
def test_choices_that_cannot_be(changes, message):
    with pytest.raises(InvalidFieldError) as refused:
        check_installation(Installation(**{"namespaces": ("shop",), **changes}))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "choices",
    [
        {"published": Published("10.0.0.1", 30443, 30444), "agents": 1},
        {
            "published": Published("{pod}.{namespace}.example.com"),
            "namespaces": ("a", "b"),
            "identities": ("checkout",),
        },
    ],
    ids=str,
)
def test_a_published_address_leads_to_one_pod(choices):
    installation = Installation(**{"namespaces": ("shop",), **choices})
    assert check_installation(installation) == installation


def test_an_egress_only_agent_has_no_tunnel():
    assert set(agent_settings(FULL, "egress")["listeners"]) == {"egress", "ready"}


def test_an_object_fits_into_kubectls_annotation():
    # `kubectl apply` without --server-side keeps the object in an annotation of 256 KiB at most.
    assert max(len(json.dumps(document)) for document in OBJECTS) < 200_000
