"""What the control plane says of the egress: each session's rules, as they were said last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

from agent.addresses import networks_of
from hairpin.errors import InvalidFieldError, UnavailableError
from hairpin.model.egress import Network, SessionRules
from hairpin.model.egress_json import session_rules_from_json

_PATIENCE = 2.0
"""Seconds that a connection waits for its session's rules: they come by another way than the leave to connect."""


class Policies:
    """The rules by session. A line of the control plane replaces them all; without one, what was said last holds.

    Args:
        patience: seconds that `rules` waits for a session that is not known yet.
    """

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._sessions: Mapping[str, SessionRules] | None = None
        self._without = False
        self._changed = asyncio.Event()
        self.forbidden: Mapping[Network, str] = {}
        """Networks that nobody reaches, by the control plane's word."""
        self.on_sessions: Callable[[frozenset[str]], None] = _ignore
        """Called with all sessions that have rules, whenever rules came."""

    @classmethod
    def without(cls) -> Policies:
        """Those of a control plane that has none: everything is allowed."""
        policies = cls()
        policies.there_are_none()
        return policies

    @property
    def known(self) -> bool:
        """Whether the control plane has said what holds."""
        return self._without or self._sessions is not None

    def there_are_none(self) -> None:
        """The control plane has no policies. It has no say any more where there were some."""
        if self._sessions is None:
            self._without = True
            self._note()

    def take(self, line: bytes) -> None:
        """One line: `{"sessions": {ID: {"default": …, "rules": […]}}, "forbidden": [NETWORK, …]}`.

        Raises:
            InvalidFieldError: it can't be read; the last one holds.
        """
        try:
            document = json.loads(line)
            sessions = dict(document["sessions"])
            networks = networks_of(document.get("forbidden", ()), "is forbidden by the control plane")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidFieldError(
                "policies", repr(error), "can't be read", "run agent and controller of one version"
            ) from error
        self._sessions = {name: session_rules_from_json(rules, f"sessions.{name}") for name, rules in sessions.items()}
        self.forbidden = networks
        self._without = False
        self._note()
        self.on_sessions(frozenset(self._sessions))

    async def rules(self, session: str) -> SessionRules:
        """The rules of a session.

        Raises:
            UnavailableError: none are known, and none came in a while.
        """
        try:
            async with asyncio.timeout(self._patience):
                while (rules := self._look_up(session)) is None:
                    await self._changed.wait()
        except TimeoutError:
            whose = f" for session {session}" if self._sessions is not None else ""
            raise UnavailableError(f"the control plane has not said yet what the egress policy is{whose}") from None
        return rules

    def _look_up(self, session: str) -> SessionRules | None:
        return SessionRules() if self._without else (self._sessions or {}).get(session)

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _ignore(_: frozenset[str]) -> None:
    pass
