"""Parses bytes and JSON objects of the exchange into typed values."""
