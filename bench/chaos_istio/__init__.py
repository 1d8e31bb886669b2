"""The same in a real Istio mesh: kills each of its parts under load, and counts what callers saw."""
