"""From records in memory to committed rows and ledger of the time-series database."""
