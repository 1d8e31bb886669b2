"""The xDS transport protocol as sans-I/O state machines."""
