"""The shop's three services, as processes, each the next one's `http_proxy`: no mesh and no name to look up."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

SHOP = Path(__file__).parents[3] / "examples" / "shop"
CLOSED_PORT = "1"


@contextlib.contextmanager
def service(name: str, *arguments: str, **variables: str) -> Iterator[int]:
    """One service of the shop on a free port; the port is what it prints."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and "HAIRPIN" not in key}
    command = [sys.executable, str(SHOP / f"{name}.py"), *arguments]
    with subprocess.Popen(command, env=kept | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout
            line = process.stdout.readline().decode()
            assert f"{name} (" in line, line
            yield int(line.rsplit(":", 1)[1])
        finally:
            process.terminate()


def get(port: int, path: str = "/", headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.fixture(scope="module")
def inventory() -> Iterator[int]:
    with service("inventory") as port:
        yield port


@pytest.fixture(scope="module")
def checkout(inventory: int) -> Iterator[int]:
    with service(
        "checkout", HAIRPIN_ENV="alice", HAIRPIN_SESSION="alice-1", http_proxy=f"http://127.0.0.1:{inventory}"
    ) as port:
        yield port


@pytest.fixture(scope="module")
def frontend(checkout: int) -> Iterator[int]:
    with service("frontend", http_proxy=f"http://127.0.0.1:{checkout}") as port:
        yield port


def test_the_answers_are_nested_and_the_environment_is_handed_on(frontend: int) -> None:
    status, answer = get(frontend, "/?mug=2&shirt=2", {"x-env": "alice"})

    assert status == 200
    assert answer["message"] == "That is 60.30, please."
    chain = [answer, answer["downstream"], answer["downstream"]["downstream"]]
    assert [link["service"] for link in chain] == ["frontend", "checkout", "inventory"]
    assert [link["where"] for link in chain] == ["cluster", "laptop of alice", "cluster"]
    assert [link["environment"] for link in chain] == ["alice"] * 3


def test_without_the_header_there_is_no_environment(frontend: int) -> None:
    _, answer = get(frontend)

    assert answer["environment"] is None
    assert answer["downstream"]["downstream"]["environment"] is None


def test_a_terminal_gets_readable_json(inventory: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", inventory)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        text = connection.getresponse().read().decode()

    assert text.endswith("}\n")
    assert '\n  "service": "inventory"' in text


@pytest.mark.parametrize(
    ("xfcc", "caller"),
    [
        (
            "By=spiffe://hairpin.local/ns/default/sa/inventory;URI=spiffe://hairpin.local/ns/default/sa/checkout",
            "checkout",
        ),
        (
            (
                'Hash=1;Subject="";URI=spiffe://hairpin.local/ns/default/sa/checkout,'
                "Hash=2;URI=spiffe://hairpin.local/ns/default/sa/inventory"
            ),
            "checkout",
        ),
        ("URI=spiffe://evil/sa/admin,URI=spiffe://hairpin.local/ns/default/sa/checkout", "checkout"),
    ],
    ids=["one hop", "its own sidecar passed it on", "a caller that wrote the header itself"],
)
def test_the_caller_is_the_last_hop_that_is_not_the_service_itself(inventory: int, xfcc: str, caller: str) -> None:
    _, answer = get(inventory, headers={"x-forwarded-client-cert": xfcc})

    assert answer["caller"] == f"spiffe://hairpin.local/ns/default/sa/{caller}"


def test_a_dead_inventory_is_a_502_with_the_reason() -> None:
    with service("checkout", http_proxy=f"http://127.0.0.1:{CLOSED_PORT}") as port:
        status, answer = get(port)

    assert status == 502
    assert answer["service"] == "checkout"
    assert "http://inventory/ can't be called" in answer["error"]


def test_an_error_further_down_keeps_its_reason() -> None:
    with (
        service("checkout", http_proxy=f"http://127.0.0.1:{CLOSED_PORT}") as broken,
        service("frontend", http_proxy=f"http://127.0.0.1:{broken}") as port,
    ):
        status, answer = get(port)

    assert status == 502
    assert answer["error"] == "http://checkout/ answered 502"
    assert "http://inventory/ can't be called" in answer["downstream"]["error"]


@pytest.mark.parametrize("query", ["spoon=1", "mug=many"])
def test_a_cart_that_cannot_be_priced_is_refused(checkout: int, query: str) -> None:
    status, answer = get(checkout, f"/?{query}")

    assert status == 400
    assert "not a cart we can price" in answer["error"]


def test_a_session_without_an_environment_goes_by_its_own_name() -> None:
    with service("inventory", HAIRPIN_SESSION="carol-1") as port:
        assert get(port)[1]["where"] == "laptop of carol-1"


def test_the_name_can_be_given() -> None:
    with service("inventory", "--name", "laptop of bob") as port:
        assert get(port)[1]["where"] == "laptop of bob"


def test_the_port_can_come_from_the_environment() -> None:
    command = [sys.executable, str(SHOP / "inventory.py")]
    done = subprocess.run(command, env=os.environ | {"PORT": "many"}, capture_output=True, check=False)

    assert b"invalid int value: 'many'" in done.stderr


@pytest.mark.parametrize(("cart", "total"), [({"mug": 2}, 19.0), ({"mug": 2, "shirt": 2}, 60.3), ({}, 0.0)])
def test_ten_percent_off_from_fifty_upwards(cart: dict[str, int], total: float) -> None:
    module = runpy.run_path(str(SHOP / "checkout.py"))

    assert module["total"](cart, runpy.run_path(str(SHOP / "inventory.py"))["PRICES"]) == total
