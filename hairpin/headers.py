"""The headers between a target's sidecar and the agent: what one writes the other must read."""

from __future__ import annotations

SESSION_HEADER = "x-hairpin-session"
"""Whose laptop a steered request is for; written by the sidecar's route."""

SERVED_HEADER = "x-hairpin-served"
"""What became of it at the agent, in Envoy's words: `via_upstream` vouches that the laptop answered."""
