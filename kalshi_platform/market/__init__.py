"""The vocabulary: units, times, records, identity of rows and the book. Pure; imports no driver and no I/O."""
