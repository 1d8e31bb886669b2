"""Snapshots by proxy: each resource is encoded once."""
