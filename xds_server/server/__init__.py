"""The I/O edge: ADS over gRPC and the session API over HTTPS."""
