"""Each program, as it is, as an ordinary user, in the embedded mesh: the mesh's answer, and its own words for each error."""

from __future__ import annotations

import sys

import pytest

from hairpin.model.mesh import AGENT
from tests.laptop.results import answer, cases, check_error
from tests.laptop.runs import driven, unprivileged
from tests.laptop.table import PROGRAMS
from tests.support.cluster.pki import Pki
from tests.support.mesh import echo_mesh, running_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120, func_only=True)]

COLUMNS = {
    "inventory": {False: "http://inventory/", True: "inventory:9090"},
    "full-name": {
        False: "http://inventory.default.svc.cluster.local:80/",
        True: "inventory.default.svc.cluster.local:9090",
    },
    "refused": {False: "http://checkout/", True: "checkout:9090"},
    "closed": {False: "http://localhost:{closed}/", True: "localhost:{closed}"},
    "unknown": {False: "http://nobody/", True: "nobody:9090"},
}
STATUS = {"key": "status", "argv": ["cat", "/proc/self/status"], "environment": {}}
ENVIRONMENT = {"key": "environment", "argv": ["env"], "environment": {}}


@pytest.fixture(scope="module")
async def outcome(tmp_path_factory, programs, closed_port):
    """The mesh's own identity of the agent, what hairpin said, and what came of each program in each column."""
    folder = tmp_path_factory.mktemp("laptop")
    columns = {
        column: {grpc: to.format(closed=closed_port) for grpc, to in asked.items()} for column, asked in COLUMNS.items()
    }
    wanted = [STATUS, ENVIRONMENT, *cases(columns, Pki(folder).certificate)]
    async with running_mesh(echo_mesh(), folder / "mesh") as mesh:
        flags = ("--refuse", "checkout")
        run, results = await driven(mesh, wanted, *flags, python=sys.executable, wrapper=unprivileged())
        return mesh.mesh.identity(AGENT), run, results


@pytest.mark.parametrize("column", ["inventory", "full-name"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_the_mesh_answers(outcome, program, column):
    identity, _, results = outcome
    said = answer(results, program, column)
    assert said["who"] == "inventory"
    assert f"URI={identity}" in said["headers"]["x-forwarded-client-cert"]


@pytest.mark.parametrize("column", ["refused", "closed"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_refused_connection_reads_as_this_language_has_it(outcome, program, column):
    check_error(outcome[2], program, column, program.refused)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_an_unknown_name_reads_as_this_language_has_it(outcome, program):
    check_error(outcome[2], program, "unknown", program.unknown)


def test_the_user_is_told_why_a_connection_was_refused(outcome):
    _, run, _ = outcome
    assert [line for line in run.errors if "checkout" in line and "--refuse checkout" in line], run.errors


def test_programs_have_no_privilege_and_no_proxy(outcome):
    """What they got, they got by interception, and as an ordinary user."""
    _, _, results = outcome
    status = dict(line.split(":", 1) for line in results["status"]["output"].splitlines())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    names = {line.partition("=")[0].lower() for line in results["environment"]["output"].splitlines()}
    assert not names & {"http_proxy", "https_proxy", "grpc_proxy", "all_proxy"}
