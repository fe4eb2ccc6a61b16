"""Records the exchange: one gatherer captures, commits and reports."""
