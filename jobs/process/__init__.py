"""Processes that work on jobs: the horse, the supervisor, maintenance, cleanup."""
