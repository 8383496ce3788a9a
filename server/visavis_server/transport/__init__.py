"""How calls arrive, whatever they ask: listeners, limits, tokens, statuses."""
