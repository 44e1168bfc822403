"""Deliveries: what is expected of a client's pipeline, what has come of it, and the runs that its coming starts.

A *delivery* is expected at `due` of its day and is missing when its `grace` has passed (`etl.calendar.dues`). What has
come is kept in staging, one file for each client's pipeline (`record`), so that a Redis that is flushed loses nothing
of it. The cron process looks at each pipeline every `poll` (`poll`): it sorts what is there to deliveries (`sorting`),
sees which runs have read it (`covered`), and starts those that the configuration asks for (`start`). `listing` is what
people and alerts see.
"""
