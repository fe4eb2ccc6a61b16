"""Jobs: the endless services, and what schedules ask for."""
