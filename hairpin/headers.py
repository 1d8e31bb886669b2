"""The headers between sidecars, agents and laptops: what one writes the other must read."""

from __future__ import annotations

SESSION_HEADER = "x-hairpin-session"
"""Whose laptop a steered request is for; written by the sidecar's route."""

SERVED_HEADER = "x-hairpin-served"
"""What became of it at the agent, in Envoy's words: `via_upstream` vouches that the laptop answered."""

COPY_HEADER = "x-hairpin-copy"
"""That a request is a copy, whose answer nobody gets; the caller's protocol. The process sees it."""

FORWARDED_HEADER = "x-hairpin-forwarded-for"
"""The original's `x-forwarded-for`, which Envoy changes in a copy; the agent puts it back."""

HOST_HEADER = "x-hairpin-host"
"""On a laptop's CONNECT to an address: the name that the program had looked up for it."""

REFUSED_HEADER = "x-hairpin-refused"
"""Why the agent refuses a connection."""

FAILED_HEADER = "x-hairpin-failed"
"""Why the agent could not connect, in its Envoy's words."""

AGENT_ITSELF = "hairpin.internal"
"""The authority of laptops' questions to the agent itself, on its egress."""
