"""Series, events and markets: from REST into the catalog database, with the history of what was known when."""
