"""The work itself: files, databases and frames. Nothing here knows of Redis, RQ or click.

| where | what |
|---|---|
| `errors`, `safe_message` | what can go wrong, and what may be said of an exception where rows must not be seen |
| `env_file` | reading a `.env` |
| `output` | what functions print, kept where its owner alone can read it |
| `context`, `partition`, `rejects` | what a run knows of itself; plans, partitions, chunks; the shape of rejects |
| `functions`, `prefetch` | the user's own functions: found, called, blamed; making the next thing ready meanwhile |
| `config/` | etl.toml: its values and models, reading it, mistakes, a pipeline resolved for one client |
| `types/` | the words of types and what each is elsewhere; casts, times, inference, cursors |
| `sources/` | a source's plan, and a partition's chunks; one module per kind, one per format of files |
| `transform/` | cast, check, call functions, check what they computed; lookups |
| `staging/` | one run's files between its stages, each published by one atomic step |
| `load/` | rows and the ledger's row in one transaction; append, merge, replace; one module per kind of target |

Imports go down this list's reverse: sources, transform, staging and load never import each other.
`docs/architecture.md` has the picture, and the table "where do I change …".
"""
