"""Nouns of the xDS protocol, free of I/O: resources, snapshots, type URLs, nodes."""
