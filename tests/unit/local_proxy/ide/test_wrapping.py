import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.ide.wrapping import runs_program

EXTENSION = "/home/me/.vscode/extensions/ms-python.debugpy-2026.1.0/bundled/libs/debugpy"
PYTHON_EXTENSION = "/home/me/.vscode/extensions/ms-python.python-2026.1.0/python_files"
HELPERS = "/opt/pycharm-2026.1/plugins/python-ce/helpers"
JDWP = "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:5005"


@pytest.mark.parametrize(
    "line",
    [
        "python checkout.py",
        "python -u -X frozen_modules=off -Xutf8 -W error ./checkout.py --version",
        "python -uB -Werror checkout.py -c x",
        "python -m uvicorn app:app --port 8080",
        "python -um flask run",
        "python -mhttp.server 8080",
        "python -- checkout.py",
        "python .venv/bin/uvicorn app:app",
        "python manage.py runserver",
        "python package/__main__.py",
        "python helpers/serve.py",
        "python -m debugpy --listen 5678 --wait-for-client checkout.py",
        "python -m debugpy --listen 5678 -m uvicorn app:app",
        f"python {EXTENSION} --connect 127.0.0.1:40001 --configure-qt none --adapter-access-token abc checkout.py --x",
        f"python -X frozen_modules=off {EXTENSION}/__main__.py --connect 40001 -m flask run",
        f"python {HELPERS}/pydev/pydevd.py --multiprocess --client 127.0.0.1 --port 41000 --file /shop/checkout.py --file x",
        f"python {HELPERS}/pydev/pydevd.py --module --multiprocess --client localhost --port 41000 --file uvicorn app:app",
        "node server.js",
        "node --inspect-brk=0 -r ./register.js --env-file=.env server.mjs --version",
        "node --import tsx src/server.ts",
        "node --enable-source-maps -- server.js",
        "node --watch .",
        "node --run start",
        f"java {JDWP} -javaagent:/opt/idea/lib/debugger-agent.jar -cp /shop/classes:/lib/a.jar com.example.Checkout --x",
        f"java {JDWP} -Dfile.encoding=UTF-8 -classpath . Checkout -version",
        "java -jar build/libs/checkout.jar",
        "java --add-opens java.base/java.lang=ALL-UNNAMED -Xmx1g -p mods -m shop/com.example.Checkout",
        "java --module=shop/com.example.Checkout",
        "java -showversion Checkout.java",
        "java com.intellij.rt.execution.application.AppMainV2 com.example.Checkout",
        "java -cp x.jar com.intellij.rt.execution.CommandLineWrapper /tmp/classpath com.example.Checkout",
        "dlv dap --listen=127.0.0.1:40001 --log-dest=3",
        "dlv --listen=127.0.0.1:40001 --headless=true --api-version 2 exec ./checkout -- --help",
        "dlv debug --headless --listen :2345 ./cmd/checkout",
        "go run ./cmd/checkout",
    ],
)
def test_the_developers_program_is_run_in_the_mesh(line):
    assert runs(line)


@pytest.mark.parametrize(
    "line",
    [
        "python",
        "python -",
        "python -i",
        "python -V",
        "python -VV",
        "python --version",
        "python --help",
        "python -c print(1) checkout.py",
        "python -Ic print(1)",
        "python -W ignore -c pass",
        "python -m pip install flask",
        "python -mpip list",
        "python -m venv .venv",
        "python -m pytest tests",
        "python -m unittest discover",
        "python -m json.tool",
        "python -m ipykernel_launcher -f kernel.json",
        "python -m hairpin run checkout",
        "python .venv/bin/pytest tests",
        "python .venv/bin/pip list",
        f"python -I {PYTHON_EXTENSION}/printEnvVariables.py",
        f"python {PYTHON_EXTENSION}/vscode_pytest/run_pytest_script.py --rootdir .",
        f"python {EXTENSION}/adapter --host 127.0.0.1 --port 0",
        f"python {EXTENSION}/launcher 40001 -- checkout.py",
        f"python {EXTENSION}/launcher/__main__.py 40001 -- checkout.py",
        "python -m debugpy.adapter --port 0",
        "python -m debugpy --version",
        "python -m debugpy --listen 5678 --pid 1234",
        "python -m debugpy --listen 5678 -m pytest tests",
        f"python {EXTENSION} --connect 40001 {PYTHON_EXTENSION}/unittestadapter/execution.py",
        f"python {HELPERS}/packaging_tool.py list",
        f"python {HELPERS}/pydev/pydevconsole.py --mode=client --port=41000",
        f"python {HELPERS}/pydev/pydevd.py --client 127.0.0.1 --port 41000 --file {HELPERS}/pycharm/_jb_pytest_runner.py",
        f"python {HELPERS}/pydev/pydevd.py --module --client localhost --port 41000 --file pytest",
        f"python {HELPERS}/pydev/pydevd.py --help",
        "node",
        "node --version",
        "node -v",
        "node -e 1",
        "node -p process.versions server.js",
        "node --eval=1",
        "node --test",
        "node inspect server.js",
        "node /usr/lib/node_modules/npm/bin/npm-cli.js run start",
        "node node_modules/typescript/lib/tsserver.js",
        "node /home/me/.vscode-server/extensions/ms-vscode.js-debug/src/watchdog.js",
        "java",
        "java -version",
        "java -XshowSettings:properties -version",
        "java --list-modules",
        "java -cp gradle/wrapper/gradle-wrapper.jar org.gradle.wrapper.GradleWrapperMain build",
        "java -cp gradle.jar worker.org.gradle.process.internal.worker.GradleWorkerMain 'Gradle Test Executor 1'",
        "java -jar gradle/wrapper/gradle-wrapper.jar test",
        "java -classpath plexus.jar -Dmaven.home=/opt/maven org.codehaus.plexus.classworlds.launcher.Launcher test",
        f"java {JDWP} -cp junit.jar com.intellij.rt.junit.JUnitStarter -ideVersion5 CheckoutTest",
        "java -cp x com.intellij.rt.execution.CommandLineWrapper /tmp/classpath com.intellij.rt.junit.JUnitStarter",
        "java -cp jps.jar org.jetbrains.jps.cmdline.BuildMain 127.0.0.1 41000",
        "java -jar /home/me/.vscode/extensions/redhat.java/server/plugins/org.eclipse.equinox.launcher_1.7.jar",
        "java -m jdk.jshell/jdk.internal.jshell.tool.JShellToolProvider",
        "dlv",
        "dlv version",
        "dlv dap --help",
        "dlv --help",
        "dlv substitute-path-guess-helper",
        "dlv attach 1234 --headless",
        "dlv test ./...",
        "go env -json GOPATH",
        "go version",
        "go list -m -json all",
        "go mod tidy",
        "go build -o /tmp/checkout ./cmd/checkout",
        "go test ./...",
        "go",
    ],
)
def test_what_an_ide_asks_of_its_tools_is_passed_on(line):
    assert not runs(line)


def test_javas_argument_files_are_read():
    files = {
        "args": '-classpath "/shop/my classes:\\\\odd\\"path" # the rest\n-Dx="a b"\n',
        "main": "com.example.Checkout",
        "junit": "'com.intellij.rt.junit.JUnitStarter'\n",
    }
    assert runs_program("java", ["@args", "@main"], files.__getitem__)
    assert not runs_program("java", ["@args", "@junit"], files.__getitem__)
    assert not runs_program("java", ["@args"], files.__getitem__)
    assert runs_program("java", ["@@odd"], files.__getitem__)


@given(
    st.sampled_from(["python", "node", "java", "dlv", "go"]),
    st.lists(
        st.one_of(
            st.text(max_size=12), st.sampled_from(["-m", "-c", "-W", "--file", "-", "--", "debugpy", "pydevd.py"])
        )
    ),
)
def test_any_command_line_has_an_answer(kind, arguments):
    assert runs_program(kind, arguments) in (True, False)


@given(st.lists(st.text()))
def test_what_follows_the_program_decides_nothing(arguments):
    for kind, words in (("python", ["app.py"]), ("node", ["app.js"]), ("java", ["-cp", ".", "Main"])):
        assert runs_program(kind, [*words, *arguments])


def runs(line):
    kind, *arguments = line.split(" ")
    return runs_program(kind, arguments)
