"""Where sessions and meshes come from."""
