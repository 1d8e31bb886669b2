"""Delivery to an Istio mesh: EnvoyFilters, and the plan of all that the controller keeps true."""
