"""Kubernetes, as laptops, installers and the controller reach it."""
