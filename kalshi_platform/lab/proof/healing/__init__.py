"""Kills of a real `up --simulate`: every process in turn, how long each takes to work again, and what was recorded."""
