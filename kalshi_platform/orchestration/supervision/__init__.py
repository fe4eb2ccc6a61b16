"""Keeping endless services alive: facts, decision, deeds."""
