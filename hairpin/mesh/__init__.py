"""The embedded mesh: services with their sidecars, the control plane and the agent, on one machine, without root."""
