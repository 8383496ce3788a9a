"""`visavis pull` against real stores: moto, emulators, a registry, a hub and plain folders."""
