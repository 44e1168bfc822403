"""The commands of rq-etl: options, and what they print."""
