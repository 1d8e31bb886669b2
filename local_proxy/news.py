"""What becomes of the session that is held, as lines for the user: each thing once."""

from __future__ import annotations

import re

from hairpin.errors import HairpinError
from hairpin.model.session import Session
from hairpin.model.version import versions_text
from local_proxy.console import Console

TUNNEL_MISSING = "TunnelMissing"
"""A condition that says what is told of each tunnel anyway."""
_AWAY = re.compile(r"(?:port \d+ of )?(.*?) can't be reached\b")


class News:
    """Remembers what was told, also over sessions that take each other's place.

    Args:
        console: where it is told.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._remarks: frozenset[str] = frozenset()
        self._problem = ""
        self._away: set[str] = set()
        self._told_versions = ""
        self._found_lost: frozenset[str] = frozenset()

    def changed(self, before: Session, after: Session) -> None:
        """The control plane tells the session anew."""
        self._away.clear()
        had = frozenset(before.status.tunnels) - self._found_lost
        self._found_lost &= frozenset(after.status.tunnels)
        has = frozenset(after.status.tunnels) - self._found_lost
        for agent in sorted(had - has):
            self._tunnel_lost(agent)
        self._tunnels_up(has - had)
        self._versions(after)
        remarks = {c.message for c in after.status.conditions if c.type != TUNNEL_MISSING}
        for message in sorted(remarks - self._remarks):
            self._console.warn(message)
        self._remarks |= remarks

    def _versions(self, session: Session) -> None:
        status = session.status
        text = versions_text(status.server, tuple(agent.version for agent in status.agents), session.spec.client)
        if text and text != self._told_versions:
            self._console.say(text)
        self._told_versions = text

    def found_lost(self, agent: str) -> None:
        """We found ourselves that a replica's tunnel is gone, while the control plane told nothing.

        When it is back, it may at first tell what was written down before. That the tunnel is up is believed, and told, after
        it has told of the loss; or when it had its time, see `settled`.
        """
        self._found_lost |= {agent}
        self._tunnel_lost(agent)

    def settled(self, session: Session) -> None:
        """The control plane has told for a while how it is."""
        self._tunnels_up(self._found_lost & frozenset(session.status.tunnels))
        self._found_lost = frozenset()

    def _tunnels_up(self, agents: frozenset[str]) -> None:
        for agent in sorted(agents):
            self._console.say(f"the tunnel to {agent} is up")

    def _tunnel_lost(self, agent: str) -> None:
        self._console.warn(f"the tunnel to {agent} is lost: the cluster answers until it is back")

    def stood_still(self, seconds: float) -> None:
        """Nothing was done here for a while."""
        self._console.say(f"this machine slept, or hairpin was stopped, for {seconds:.0f} s")

    def replaced(self, gone: str, name: str) -> None:
        """There is a session again, after one went."""
        self._console.warn(f"{gone}: session {name} takes its place")

    def not_replaced(self, gone: str, error: BaseException) -> None:
        """There is none yet."""
        self._trying_on(str(error), f"{gone}, and can't be claimed again: {error}")

    def failed(self, error: HairpinError) -> None:
        """A call to the control plane failed, and is repeated."""
        if not self._told_away(error):
            self._trying_on(str(error), str(error))

    def watch_lost(self, error: HairpinError) -> None:
        """The control plane can't be watched."""
        if not self._told_away(error):
            self._console.warn(f"{error}; trying on")

    def way_lost(self, error: HairpinError) -> None:
        """A way to a replica is not there."""
        if not self._told_away(error):
            self._console.warn(str(error))

    def _told_away(self, error: HairpinError) -> bool:
        """Whether it is that something can't be reached: told once, whoever notices, until the session is watched again.

        A watch, calls and the port-forwards to each replica notice one after the other, and not in the same words.
        """
        found = _AWAY.match(str(error))
        if found is None:
            return False
        if found[1] not in self._away:
            self._away.add(found[1])
            self._console.warn(f"{error}; trying on")
        return True

    def _trying_on(self, problem: str, text: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._console.warn(f"{text}; trying on")
