"""`hairpin mesh status`: who refuses what, and why."""

from __future__ import annotations

from hairpin.mesh.status import table


def proxy(node: str, **types: dict[str, object]) -> dict[str, object]:
    since = "2026-11-23T14:43:44.864350+00:00"
    return {"node": {"id": node}, "variant": "delta", "connectedSince": since, "types": types}


IN_STEP = {"sent": "1", "acked": "1", "synced": "1"}
BEHIND = {"sent": "2", "acked": "1", "synced": None}
REFUSED = BEHIND | {"nack": {"version": "2", "reason": "Invalid regex\n '('", "time": "x"}}


def test_all_in_step_is_said_in_one_line():
    lines, refusing = table([proxy("a", Cluster=IN_STEP), proxy("bb", Listener=IN_STEP)])
    assert len(lines) == 3 and lines[-1] == "2 proxies: all in step" and refusing == 0


def test_a_refusal_is_shown_with_its_proxy_and_reason():
    lines, refusing = table([proxy("a", Cluster=IN_STEP, TypedExtensionConfig=REFUSED)])
    assert refusing == 1 and lines[0].startswith("a  refuses")
    assert lines[1].strip() == "TypedExtensionConfig refused: Invalid regex '('"
    assert lines[-1] == "1 proxies: 1 refuse what they were sent, 0 behind"


def test_what_is_not_acknowledged_yet_is_named():
    lines, refusing = table([proxy("a", Cluster=BEHIND)])
    assert refusing == 0 and lines[0].startswith("a  behind") and "Cluster not acknowledged yet" in lines[1]
