"""The laptop runtime: the tunnel, the egress proxy and the developer's command."""
