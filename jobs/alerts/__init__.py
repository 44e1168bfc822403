"""Alerts: what is wrong now (causes), what has been said of it (state), and how it is said (texts, send).

Level-triggered: every few seconds the cron process works out all causes anew, and compares them with those that are
open in Redis. So nothing depends on a moment that nobody saw, and a flush of Redis has each said once more at most.
"""
