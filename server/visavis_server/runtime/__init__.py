"""The resources that run models: sessions, execution providers, cores and memory."""
