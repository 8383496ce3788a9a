"""The gRPC listener: interceptors, health, authentication."""
