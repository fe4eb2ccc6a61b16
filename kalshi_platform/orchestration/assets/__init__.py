"""Assets by stage: sources, gatherer, production, lake."""
