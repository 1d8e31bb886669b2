"""The demo: a small shop in an embedded mesh, and a story to follow in it."""
