"""Many gatherers → one production database that holds every message once."""
