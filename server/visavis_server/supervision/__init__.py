"""Several workers, each a server, on one address: the supervisor, and a worker's side of it."""
