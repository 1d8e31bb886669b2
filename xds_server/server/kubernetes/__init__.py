"""The control plane in Kubernetes: sessions are objects, steering goes into EnvoyFilters."""
