"""Reports on the server: histograms, traces, systemd notifications, standard error."""
