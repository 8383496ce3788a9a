"""Commands beside the server: doctor, tune and limit."""
