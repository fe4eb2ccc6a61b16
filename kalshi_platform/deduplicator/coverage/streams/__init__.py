"""What each stream of a gatherer recorded of an hour, and what that supports claiming."""
