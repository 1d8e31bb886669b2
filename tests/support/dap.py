"""The client's end of the Debug Adapter Protocol, as an editor speaks it to debugpy's adapter and to dlv."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

SECONDS = 30.0
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Dap:
    """One debug session.

    Args:
        reader: of the adapter's messages.
        writer: to it.
        handlers: answers to the adapter's own requests, by command: the body.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: dict[str, Handler] | None = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers or {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._news = asyncio.Condition()
        self.events: list[dict[str, Any]] = []
        self.output = ""

    async def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A request's answer: its body.

        Raises:
            AssertionError: it was refused, with the adapter's reason.
        """
        return await self.answer(await self.send(command, **arguments), command)

    async def send(self, command: str, **arguments: Any) -> asyncio.Future[dict[str, Any]]:
        """Send a request whose answer comes later: launch is answered after configurationDone."""
        number = next(self._numbers)
        self._waiting[number] = answered = asyncio.get_running_loop().create_future()
        await self._write({"seq": number, "type": "request", "command": command, "arguments": arguments})
        return answered

    async def answer(self, answered: asyncio.Future[dict[str, Any]], what: str = "") -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            answer = await answered
        assert answer["success"], f"{what}: {answer.get('message')} {answer.get('body')}\n{self.output}"
        body: dict[str, Any] = answer.get("body") or {}
        return body

    async def event(self, name: str) -> dict[str, Any]:
        """The next event of this name that was not taken yet: its body."""
        try:
            async with asyncio.timeout(SECONDS), self._news:
                while True:
                    for place, event in enumerate(self.events):
                        if event["event"] == name:
                            return self.events.pop(place).get("body") or {}
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no event {name}; {self.events}\n{self.output}") from None

    async def read(self) -> None:
        """Take the adapter's messages until it hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                await self._take(json.loads(await self._reader.readexactly(int(length.partition(b":")[2]))))

    async def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "response":
            self._waiting.pop(message["request_seq"]).set_result(message)
        elif message["type"] == "request":
            body = await self._handlers[message["command"]](message["arguments"])
            await self._write(
                {
                    "seq": next(self._numbers), "type": "response", "request_seq": message["seq"], "success": True,
                    "command": message["command"], "body": body,
                }
            )  # fmt: skip
        else:
            if message["event"] == "output":
                self.output += message["body"]["output"]
            async with self._news:
                self.events.append(message)
                self._news.notify_all()

    async def _write(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self._writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        await self._writer.drain()


@contextlib.asynccontextmanager
async def dap(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: dict[str, Handler] | None = None
) -> AsyncIterator[Dap]:
    """A session whose messages are read during the block."""
    client = Dap(reader, writer, handlers)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(client.read())
        try:
            yield client
        finally:
            reading.cancel()
            writer.close()
