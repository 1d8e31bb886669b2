"""Port-forwards by kubectl: for those whose way to the API server only kubectl knows."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Sequence

from hairpin.envoy.child import Child
from hairpin.errors import HairpinError, NotFoundError, UnavailableError
from local_proxy.control_planes import Connection
from local_proxy.reach import PortForwards

_LOOPBACK = "127.0.0.1"
_PAUSE_SECONDS = (0.2, 2.0)
"""The first and the longest pause before a kubectl that ended is started again: its pod was replaced, say."""


class KubectlForward:
    """A local port that `kubectl port-forward` leads to a pod's.

    Args:
        command: kubectl, with what says which cluster and namespace.
        pod: the pod's name.
        port: of the pod.
        tasks: the group that its process is watched in.
        on_error: called with what kubectl says when it ends, once for the same thing in a row.
    """

    def __init__(
        self,
        command: Sequence[str],
        pod: str,
        port: int,
        tasks: asyncio.TaskGroup,
        on_error: Callable[[HairpinError], None],
    ) -> None:
        self._command = (*command, "port-forward", f"pod/{pod}", "--address", _LOOPBACK)
        self._pod = pod
        self._port = port
        self._tasks = tasks
        self._on_error = on_error
        self._running: asyncio.Task[None] | None = None
        self._told = ""

    async def listen(self) -> tuple[str, int]:
        """Begin; where it will listen, as soon as kubectl is connected and whenever it is again."""
        with socket.create_server((_LOOPBACK, 0)) as probe:
            local = int(probe.getsockname()[1])
        self._running = self._tasks.create_task(self._keep(local))
        return _LOOPBACK, local

    def close(self) -> None:
        """End it."""
        if self._running is not None:
            self._running.cancel()

    async def _keep(self, local: int) -> None:
        first, longest = _PAUSE_SECONDS
        pause = first
        while True:
            words: list[bytes] = []
            child = await Child.spawn(
                [*self._command, f"{local}:{self._port}"],
                on_stdout=lambda _: None,
                on_stderr=words.append,
                on_exit=lambda _: None,
            )
            try:
                await child.finished.wait()
            finally:
                child.asked = True
                await child.kill()
            self._tell(b" ".join(words[-3:]).decode(errors="replace"))
            pause = first if child.seconds > longest else min(2 * pause, longest)
            await asyncio.sleep(pause)

    def _tell(self, words: str) -> None:
        if words and words != self._told:
            self._told = words
            self._on_error(UnavailableError(f"kubectl port-forward to pod {self._pod} ended: {words}"))


@contextlib.asynccontextmanager
async def kubectl_forwards(
    connection: Connection, context: str, namespace: str, on_error: Callable[[HairpinError], None]
) -> AsyncIterator[PortForwards]:
    """Port-forwards to pods of a namespace, by kubectl, until the context ends.

    Raises:
        NotFoundError: there is no kubectl.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise NotFoundError("--port-forward: there is no kubectl on PATH; install it, or leave the flag out")
    command = [kubectl, "--context", context, "--namespace", namespace]
    if connection.kubeconfig:
        command += ["--kubeconfig", connection.kubeconfig]
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    forwards = PortForwards(lambda pod, port: KubectlForward(command, pod, port, tasks, on_error))
    try:
        yield forwards
    finally:
        forwards.close()
        # What the body raised is the body's, and no member of a group.
        await tasks.__aexit__(None, None, None)
