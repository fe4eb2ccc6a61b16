"""Reconciling production's trades with what the exchange lists by REST."""
