"""What is in Redis: keys, scripts, runs."""
