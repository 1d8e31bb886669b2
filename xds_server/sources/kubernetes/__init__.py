"""Kubernetes as a source: what its API server has, and who calls."""
