"""Our own RPCs: request → query → answer → response."""
