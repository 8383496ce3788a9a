"""Encoded pictures, read by their structure before anything is decoded."""
