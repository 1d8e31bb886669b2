import contextlib
import socket
import threading

import pytest

from local_proxy import inspector
from local_proxy.debuggers import ALL_PORTS, debugger_ports, has_random_inspector
from local_proxy.inspector import inspector_port


@pytest.mark.parametrize(
    ("command_line", "ports"),
    [
        ("python -m debugpy --listen 5678 --wait-for-client app.py --port 8080", {5678}),
        ("python -m debugpy --listen 0.0.0.0:5678 app.py", {5678}),
        ("python -Xfrozen_modules=off -m debugpy --configure-subProcess false --listen=127.0.0.1:5679 app.py", {5679}),
        ("node --inspect server.js", {9229}),
        ("node --inspect=9230 server.js", {9230}),
        ("node --inspect-brk=0.0.0.0:9231 server.js", {9231}),
        ("node --inspect=[::1]:9232 server.js", {9232}),
        ("node server.js --inspector off", set()),
        ("java -agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=*:5005 -jar app.jar", {5005}),
        ("java -agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=5006 -jar app.jar", {5006}),
        ("java -Xrunjdwp:transport=dt_socket,address=localhost:5007,server=y -jar app.jar", {5007}),
        ("java -agentlib:jdwp=transport=dt_socket,server=n,address=ide:8080 -jar app.jar", set()),
        ("java -Dcom.sun.management.jmxremote.port=9010 -jar app.jar", {9010}),
        ("dlv debug --headless --listen=:2345 ./cmd", {2345}),
        ("/home/me/go/bin/dlv exec ./checkout --headless -l 127.0.0.1:2346", {2346}),
        ("rdbg --open --port 12345 -c -- bundle exec rails s", {12345}),
        ("python -m http.server 8080", set()),
        ("uvicorn app:app --port 8000 --reload", set()),
        ("python tool.py --listen 8080", set()),
        ("python /x/debugpy/adapter/../../debugpy --connect 127.0.0.1:40001 --adapter-access-token abc app.py", set()),
        ("node --inspect-brk=0 server.js", {0}),
    ],
)
def test_ports_of_debuggers_are_read_from_the_command_line(command_line, ports):
    assert debugger_ports(command_line.split()) == ports


@pytest.mark.parametrize(
    "command_line",
    ["python /site-packages/debugpy/adapter --for-server 40001 --host 127.0.0.1 --port 5678", "gdbserver :2000 ./app"],
)
def test_a_process_that_is_nothing_but_a_debugger_has_no_port_of_the_service(command_line):
    assert debugger_ports(command_line.split()) is ALL_PORTS


@pytest.mark.parametrize(
    ("environment", "ports"),
    [
        ({"NODE_OPTIONS": "--max-old-space-size=4096 --inspect=9333"}, {9333}),
        ({"JAVA_TOOL_OPTIONS": "-agentlib:jdwp=transport=dt_socket,server=y,address=*:5010"}, {5010}),
        ({"RUBY_DEBUG_PORT": "1234"}, {1234}),
        ({"PORT": "8080"}, set()),
    ],
)
def test_ports_of_debuggers_are_read_from_the_environment(environment, ports):
    assert debugger_ports(["service"], environment) == ports


@pytest.mark.parametrize(
    ("command_line", "environment", "random"),
    [
        ("node --inspect=0 server.js", {}, True),
        ("node --inspect-brk=127.0.0.1:0 server.js", {}, True),
        ("node server.js", {"NODE_OPTIONS": "--require x --inspect=0"}, True),
        ("node server.js", {"VSCODE_INSPECTOR_OPTIONS": '{"inspectorIpc": "/tmp/x"}'}, True),
        ("node --inspect server.js", {}, False),
        ("node --inspect=9229 server.js", {"VSCODE_INSPECTOR_OPTIONS": ""}, False),
        ("node server.js", {"PORT": "0"}, False),
    ],
)
def test_an_inspector_on_a_random_port_is_to_be_asked(command_line, environment, random):
    assert has_random_inspector(command_line.split(), environment) is random


def serve(answer):
    """A port that answers one request, and how many came."""
    server, asked = socket.create_server(("127.0.0.1", 0)), []

    def take():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(1000))
                    connection.sendall(answer)

    threading.Thread(target=take, daemon=True).start()
    return server, asked


def test_the_inspector_is_who_answers_as_one_and_who_comes_after_is_not_asked(monkeypatch):
    monkeypatch.setattr(inspector, "_SECONDS", 30.0)  # however busy the machine
    other, _ = serve(b"HTTP/1.1 404 Not Found\r\n\r\n")
    debugger, asked = serve(b'HTTP/1.0 200 OK\r\n\r\n{"Browser": "node.js/v20", "Protocol-Version": "1.1"}')
    service, never = serve(b"Protocol-Version")
    addresses = [one.getsockname() for one in (other, debugger, service)]
    assert inspector_port(addresses) == debugger.getsockname()[1]
    assert asked[0].startswith(b"GET /json/version ")
    assert not never
    assert inspector_port(addresses[:1]) is None
    for one in (other, debugger, service):
        one.close()
