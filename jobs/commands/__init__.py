"""The commands of rq-etl: they read options, call what does the work, and print. Click is here and in cli.py only."""
