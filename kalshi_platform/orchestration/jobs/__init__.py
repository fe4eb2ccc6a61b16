"""Jobs: the long-running services, and the batches that schedules request."""
