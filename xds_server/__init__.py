"""The control plane: sessions and meshes in, Envoy configuration out."""
