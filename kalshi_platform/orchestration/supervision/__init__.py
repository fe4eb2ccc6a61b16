"""Supervision: a service whose switch is on and whose lock nobody holds is launched."""
