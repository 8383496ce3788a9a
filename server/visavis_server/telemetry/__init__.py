"""What the server tells of itself: histograms, traces, systemd, standard error."""
