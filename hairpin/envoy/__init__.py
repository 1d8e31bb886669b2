"""Envoy, as a managed process: its binary, configuration files, admin interface and lifetime."""
