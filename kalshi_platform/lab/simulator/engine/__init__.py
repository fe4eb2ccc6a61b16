"""The simulated exchange itself: markets, books, activity, subscriptions, and the ledger of what it published."""
