"""When something is expected: cron lines, days of deliveries, and the dates in files' names. Nothing of Redis or files."""
