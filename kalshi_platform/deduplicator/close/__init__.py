"""The close of an hour: merged again, verified, and written down; what closes found, for people."""
