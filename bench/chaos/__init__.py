"""Kills and freezes each part of a mesh under load, and counts what callers saw."""
