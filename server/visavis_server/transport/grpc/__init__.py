"""Calls over gRPC: interceptors, health, authentication."""
