import pytest

from local_proxy.debuggers import ALL_PORTS, debugger_ports


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
