"""One request to the API server, as whoever the credentials say: a call, a stream, a WebSocket; and what went wrong in words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hairpin.kubernetes.errors import ApiError, ApiUnreachableError, api_error

if TYPE_CHECKING:
    import aiohttp

    from hairpin.kubernetes.credentials import Credentials

_CALL_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_UNAUTHORIZED = 401
_REFUSALS_FROM = 400


class Requests:
    """Requests of one user to one API server.

    Args:
        session: aiohttp's.
        credentials: where the API server is, and who we are.
    """

    def __init__(self, session: aiohttp.ClientSession, credentials: Credentials) -> None:
        self._session = session
        self._credentials = credentials

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._credentials.server

    @property
    def context(self) -> str:
        """The kubeconfig's context; empty for a pod's service account."""
        return self._credentials.context

    @property
    def namespace(self) -> str:
        """The context's namespace, or the pod's own; `default` where none is set."""
        return self._credentials.namespace

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """One request, its answer in JSON."""
        async with self.stream(
            method, path, query=query, body=body, content_type=content_type, total=_CALL_SECONDS
        ) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        total: float | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, its answer as it comes.

        Raises:
            ApiError: it was refused, or the API server can't be reached.
        """
        import aiohttp  # noqa: PLC0415

        headers = {"Accept": "application/json"}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        params = {name: value for name, value in (query or {}).items() if value}
        try:
            response = await self._authenticated(
                method, path, headers=headers, params=params, data=data, timeout=timeout
            )
            try:
                if response.status >= _REFUSALS_FROM:
                    raise await _refusal(response, method, path)
                yield response
            finally:
                response.release() if response.content.at_eof() else response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.server, error) from error

    @contextlib.asynccontextmanager
    async def websocket(
        self,
        path: str,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        protocols: tuple[str, ...] = (),
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket, as `exec` and `portforward` are spoken over; a query with repeated names is given as pairs.

        Raises:
            ApiError: it was refused, or the API server can't be reached.
        """
        import aiohttp  # noqa: PLC0415

        await self._credentials.refresh()
        try:
            try:
                socket = await self._upgraded(path, query, protocols)
            except aiohttp.WSServerHandshakeError as error:
                if error.status != _UNAUTHORIZED:
                    raise
                await self._credentials.renew()
                socket = await self._upgraded(path, query, protocols)
        except aiohttp.WSServerHandshakeError as error:
            raise api_error(error.status, {"message": error.message}, "GET", path) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.server, error) from error
        async with socket:
            yield socket

    async def _upgraded(
        self, path: str, query: Mapping[str, str] | Sequence[tuple[str, str]] | None, protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse:
        import aiohttp  # noqa: PLC0415

        socket: aiohttp.ClientWebSocketResponse = await self._session.ws_connect(
            self.server + path,
            params=query,
            protocols=protocols,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            max_msg_size=0,
            **self._credentials.arguments(),
        )
        return socket

    async def _authenticated(
        self, method: str, path: str, *, headers: dict[str, str], **arguments: Any
    ) -> aiohttp.ClientResponse:
        await self._credentials.refresh()
        for attempt in ("first", "last"):
            ours = self._credentials.arguments()
            response = await self._session.request(
                method, self.server + path, **{**ours, "headers": {**ours["headers"], **headers}}, **arguments
            )
            if response.status != _UNAUTHORIZED or attempt == "last":
                break
            response.release()
            await self._credentials.renew()
        return response

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.server}>"


async def _refusal(response: aiohttp.ClientResponse, method: str, path: str) -> ApiError:
    text = await response.text()
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": " ".join(text[:500].split())}
    return api_error(response.status, status if isinstance(status, dict) else {}, method, path)


def _unreachable(server: str, error: BaseException) -> ApiUnreachableError:
    message = f"the API server at {server} can't be reached: {_reason(error)}"
    return ApiUnreachableError(503, "ServiceUnavailable", message)


def _reason(error: BaseException) -> str:
    import aiohttp  # noqa: PLC0415

    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not what the kubeconfig trusts: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            return error.os_error.strerror or str(error.os_error)
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "the connection broke off"
    return str(error) or type(error).__name__
