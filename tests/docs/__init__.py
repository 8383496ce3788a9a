"""The documentation: its examples run, and its site builds."""
