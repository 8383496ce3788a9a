"""Transport of calls, over gRPC and HTTP: listeners, limits, authentication, statuses."""
