"""Defines the vocabulary: units, times, records, identity of rows and the book. Pure; imports no driver or I/O."""
