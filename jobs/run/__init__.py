"""A run: submitted, planned, retried, canceled, finished."""
