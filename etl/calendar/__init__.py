"""When something is expected: cron lines, days of deliveries, and when each of them is due."""
