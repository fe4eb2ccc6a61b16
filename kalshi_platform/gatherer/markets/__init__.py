"""Which markets a gatherer follows, and what is known of them."""
