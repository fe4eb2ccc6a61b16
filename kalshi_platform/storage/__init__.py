"""PostgreSQL and TimescaleDB: the only room that holds their drivers. Plain calls in, Arrow in and out."""
