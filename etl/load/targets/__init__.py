"""The kinds of databases that rows go to: one module each."""
