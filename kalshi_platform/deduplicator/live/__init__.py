"""The live merge: pass after pass, with a heartbeat, metrics and health."""
