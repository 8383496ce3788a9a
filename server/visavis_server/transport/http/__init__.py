"""Calls over HTTP: the server, its guards, Connect, and the playground."""
