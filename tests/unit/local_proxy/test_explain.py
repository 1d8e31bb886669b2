"""What `hairpin explain-egress` says, of rules and of what a cluster and a resolver (both fakes) answer."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest

from hairpin import cli
from hairpin.errors import InvalidFieldError, UnavailableError
from local_proxy.explain import ALLOWED, REFUSED, UNKNOWN, Destination, explain, parse_destination
from local_proxy.questions import NameAnswer, Verdict
from local_proxy.rule_text import parse_rule
from local_proxy.rules import Action, Rules

INVENTORY = NameAnswer(
    addresses=(ip_address("fd00::9"), ip_address("10.96.1.2")), name="inventory.shop.svc.cluster.local"
)
NOBODY = NameAnswer(exists=False, reason="there is no nobody")


class Cluster:
    def __init__(self, names=None, refused=None):
        self.names, self.refused, self.asked, self.opened, self.closed = names or {}, refused or {}, [], 0, 0

    @contextlib.asynccontextmanager
    async def __call__(self):
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    async def name(self, host):
        self.asked.append(host)
        return self.names[host]

    async def destination(self, authority, host=""):
        self.asked.append((authority, host))
        reason = self.refused.get(authority, "")
        return Verdict(allowed=not reason, address="" if reason else authority, reason=reason)


def rules(*words, listened=None):
    user = tuple(parse_rule(Action(word.split()[0]), word.split()[1]) for word in words)
    return Rules(user, listened=listened) if listened else Rules(user)


async def told(wanted, of=None, cluster=None, here=()):
    async def resolve(host):
        return tuple(map(ip_address, here))

    said = await explain(parse_destination(wanted), of or rules(), cluster, resolve)
    return said.exit_code, said.lines


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("Inventory.:80", "inventory", 80), ("10.96.1.2:443", "10.96.1.2", 443), ("[fd00::1]:1", "fd00::1", 1)],
)
def test_a_destination(text, host, port):
    assert parse_destination(text) == Destination(host, port)


@pytest.mark.parametrize(
    "text", ["inventory", "inventory:", ":80", "inventory:0", "inventory:65536", "http://inventory:80", "fd00::1:80", "[inventory]:80", "[fe80::1%eth0]:80", "a b:80", "*.corp:80", "inventory:80-81", ".:80", ""]
)  # fmt: skip
def test_what_is_no_destination_is_refused_with_what_would_be_one(text):
    with pytest.raises(InvalidFieldError, match=r"^HOST:PORT.*; write one host and one port: inventory:80"):
        parse_destination(text)


async def test_a_service_of_the_mesh():
    """Of both families IPv4 alone, as the command's name server gives it out."""
    cluster = Cluster({"inventory": INVENTORY})
    assert await told("inventory:80", cluster=cluster) == (
        ALLOWED,
        [
            "inventory:80 goes into the mesh: by default",
            "inventory is fd00::9, 10.96.1.2: the cluster says so (inventory.shop.svc.cluster.local)",
            "allowed: the agent connects to 10.96.1.2:80",
        ],
    )
    assert cluster.asked == ["inventory", ("10.96.1.2:80", "inventory")]
    assert (cluster.opened, cluster.closed) == (1, 1)


async def test_what_the_policy_refuses():
    cluster = Cluster({"inventory": INVENTORY}, {"10.96.1.2:80": "use staging"})
    code, lines = await told("inventory:80", cluster=cluster)
    assert (code, lines[-1]) == (REFUSED, "refused by the agent: use staging")


async def test_one_address_of_several_that_is_let_through_is_a_way():
    both = NameAnswer(addresses=(ip_address("10.0.0.1"), ip_address("10.0.0.2")))
    code, lines = await told("both:80", cluster=Cluster({"both": both}, {"10.0.0.1:80": "no"}))
    assert code == ALLOWED
    assert lines[-2:] == ["allowed: the agent connects to 10.0.0.2:80", "refused by the agent: no"]


async def test_a_name_that_the_cluster_does_not_know():
    code, lines = await told("nobody:80", cluster=Cluster({"nobody": NOBODY}))
    assert (code, lines[-1]) == (UNKNOWN, "the command is told that there is no such name: there is no nobody")


async def test_a_name_without_an_address_of_its_own_is_asked_about_by_name():
    cluster = Cluster({"inventory": NameAnswer(virtual=True)})
    code, _ = await told("inventory:80", cluster=cluster)
    assert (code, cluster.asked) == (ALLOWED, ["inventory", ("inventory:80", "")])


@pytest.mark.parametrize("rule", ["refuse *.prod", "refuse db.prod:5432", "refuse :5432"])
async def test_a_rule_that_refuses_is_named_and_the_cluster_left_alone(rule):
    cluster = Cluster()
    code, lines = await told("db.prod:5432", rules(rule), cluster)
    assert (code, lines) == (REFUSED, [f"db.prod:5432 is refused on this machine: --{rule}"])
    assert not cluster.opened


async def test_a_rule_for_a_network_that_stands_first_waits_for_the_addresses():
    cluster = Cluster({"inventory": INVENTORY})
    code, lines = await told("inventory:80", rules("mesh 10.96.0.0/16", "refuse *:80"), cluster)
    assert (code, lines[0]) == (ALLOWED, "inventory:80 goes into the mesh: --mesh 10.96.0.0/16")


async def test_a_name_of_the_cluster_whose_address_a_rule_keeps_local():
    cluster = Cluster({"inventory": INVENTORY})
    code, lines = await told("inventory:80", rules("local 10.96.0.0/16"), cluster)
    assert code == ALLOWED
    assert lines[0] == "inventory:80 goes out from this machine, as without hairpin: --local 10.96.0.0/16"
    assert cluster.asked == ["inventory"]


async def test_addresses_of_one_name_that_go_different_ways():
    both = NameAnswer(addresses=(ip_address("10.0.0.1"), ip_address("10.1.0.1")))
    code, lines = await told("both:80", rules("refuse 10.1.0.0/16"), Cluster({"both": both}))
    assert code == ALLOWED
    assert lines[:2] == [
        "both:80 at 10.0.0.1 goes into the mesh: by default",
        "both:80 at 10.1.0.1 is refused on this machine: --refuse 10.1.0.0/16",
    ]


async def test_a_local_name_is_asked_of_this_machines_resolver_alone():
    cluster = Cluster()
    code, lines = await told("git.corp:443", rules("local *.corp"), cluster, here=["192.0.2.7"])
    assert code == ALLOWED
    assert lines == [
        "git.corp:443 goes out from this machine, as without hairpin: --local *.corp",
        "git.corp is 192.0.2.7: this machine's resolver says so (--local *.corp)",
    ]
    code, lines = await told("git.corp:443", rules("local *.corp"), cluster)
    assert (code, lines[-1]) == (
        UNKNOWN,
        "this machine's resolver, which is asked (--local *.corp), does not know git.corp",
    )
    assert not cluster.opened


async def test_a_name_that_is_local_for_another_port_is_judged_by_the_agent_with_this_machines_address():
    cluster = Cluster()
    code, _ = await told("db:80", rules("local db:5432"), cluster, here=["192.0.2.7"])
    assert (code, cluster.asked) == (ALLOWED, [("192.0.2.7:80", "db")])


async def test_an_address_of_this_machine_that_is_listened_at_stays_here():
    code, lines = await told("192.0.2.1:80", rules(listened=lambda address, port: port == 80), Cluster())
    assert (code, lines) == (
        ALLOWED,
        ["192.0.2.1:80 goes out from this machine, as without hairpin: this machine listens there itself"],
    )


async def test_offline_the_rules_alone_speak():
    code, lines = await told("inventory:80", rules("local 10.0.0.0/8"))
    assert (code, lines) == (
        ALLOWED,
        [
            "inventory:80 goes into the mesh: by default",
            "inventory is looked up in the cluster, which was not asked",
            "your rules for networks count once its addresses are known",
        ],
    )
    assert (await told("[fd00::1]:80"))[1][-1] == "whether the cluster lets it through was not asked"


async def test_a_cluster_that_cannot_say_is_an_error_and_given_back():
    cluster = Cluster()

    async def unavailable(host):
        raise UnavailableError("the agent can't be asked")

    cluster.name = unavailable
    with pytest.raises(UnavailableError, match="can't be asked"):
        await told("inventory:80", cluster=cluster)
    assert cluster.closed == 1


# The command line


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_the_rules_of_hairpin_yaml_hold_after_those_that_are_typed(tmp_path, capfd):
    (tmp_path / "hairpin.yaml").write_text("refuse: ['*.prod']\nservices:\n  web: {refuse: 'db:1'}\n  api: {}\n")
    assert cli.main(["explain-egress", "--offline", "db.prod:5432"]) == REFUSED
    assert cli.main(["explain-egress", "--offline", "db.prod:5432", "--mesh", "db.prod"]) == ALLOWED
    assert cli.main(["explain-egress", "--offline", "db:1"]) == ALLOWED
    assert cli.main(["explain-egress", "--offline", "db:1", "web"]) == REFUSED
    assert cli.main(["explain-egress", "--offline", "--no-file", "db.prod:5432"]) == ALLOWED
    out, err = capfd.readouterr()
    assert "--refuse *.prod" in out.splitlines()[0]
    assert not err


def test_what_is_wrong_is_said_before_anything_is_asked(tmp_path, capfd):
    assert cli.main(["explain-egress", "inventory"]) == 2
    assert cli.main(["explain-egress", "inventory:80", "--refuse", "a b"]) == 2
    assert cli.main(["explain-egress", "inventory:80", "--nonsense"]) == 2
    (tmp_path / "hairpin.yaml").write_text("refuse: ['a b']\n")
    assert cli.main(["explain-egress", "inventory:80", "--offline"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert "HOST:PORT: 'inventory' is no destination" in lines[0]
    assert "--refuse: 'a b' is no host" in lines[1]
    assert "hairpin.yaml" in lines[-1]
