"""Keeps the frames and marks that a gatherer receives in append-only segment files, before anything reads them."""
