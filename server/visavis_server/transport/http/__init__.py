"""The HTTP listeners: the server, its guards, Connect, and the playground."""
