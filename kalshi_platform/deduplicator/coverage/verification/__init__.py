"""Verification of claims: books and snapshots that contradict a claim withdraw it."""
