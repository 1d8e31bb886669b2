"""The table held against the programs without hairpin: the words that are expected of them behind it are their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import pytest

from tests.laptop.results import answer, cases, check_error, read
from tests.laptop.runs import DRIVER
from tests.laptop.table import PROGRAMS
from tests.support.cluster.pki import Pki
from tests.support.echo_process import echo_process
from tests.support.mesh import ROOT

pytestmark = pytest.mark.timeout(120, func_only=True)
HTTP = [program for program in PROGRAMS if not program.grpc]


@contextlib.asynccontextmanager
async def secure_process(certificate, key):
    """The TLS server's port."""
    command = [sys.executable, "-m", "tests.laptop.secure", "vault", "127.0.0.1:0", certificate, key]
    process = await asyncio.create_subprocess_exec(*map(str, command), cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        yield int((await process.stdout.readline()).split()[-1])
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
async def native(tmp_path_factory, programs, closed_port):
    folder = tmp_path_factory.mktemp("native")
    pki = Pki(folder)
    async with echo_process("inventory") as echo, secure_process(*pki.server("localhost", ["localhost"])) as tls:
        columns = {
            "inventory": {False: f"http://localhost:{echo.http[1]}/", True: f"localhost:{echo.grpc[1]}"},
            "secure": {False: f"https://localhost:{tls}/"},
            "refused": {False: f"http://127.0.0.1:{closed_port}/", True: f"127.0.0.1:{closed_port}"},
            "unknown": {False: "http://nobody.invalid/", True: "nobody.invalid:9090"},
        }
        command = [sys.executable, *DRIVER, json.dumps(cases(columns, pki.certificate))]
        driver = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        output, _ = await driver.communicate()
    return read(output.decode().splitlines())


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_each_program_gets_an_answer(native, program):
    assert answer(native, program, "inventory")["who"] == "inventory"


@pytest.mark.parametrize("program", HTTP, ids=str)
def test_each_program_takes_the_authority(native, program):
    assert answer(native, program, "secure")["who"] == "vault"


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_each_programs_words_for_a_refused_connection(native, program):
    check_error(native, program, "refused", program.refused)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_each_programs_words_for_an_unknown_name(native, program):
    check_error(native, program, "unknown", program.unknown)
