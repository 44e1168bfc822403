"""The work of `etl`, run as RQ jobs for many clients. From the top down; imports go this way only.

| where | what |
|---|---|
| `commands/` | the commands of `rq-etl`: options, calls, what is printed; click is here and in `cli.py` only |
| `pytest_plugin`, `api`, `enqueue` | the fixture for users' tests; the verbs from Python |
| `dashboard/`, `demo/`, `views/` | pages; the demo and `init`; what people see: status, history, rejects, the doctor |
| `session` | a broker, a configuration and, where the broker is ours, its workers |
| `broker`, `worker` | the private Redis; RQ's loop with our dequeue, lease and maintenance (`RQ_WORKER_CLASS`) |
| `stages` | every function that a worker may be asked to call, and only those (their names are in Redis) |
| `process/` | the horse, the supervisor, completing a job, maintenance, cleanup |
| `run/` | a run: submitted, planned, held, the life of its stages, finished, balanced, retried, canceled |
| `queue`, `job` | FairQueue (`RQ_QUEUE_CLASS`): a queue per client; EtlJob (`RQ_JOB_CLASS`): JSON, allowed functions |
| `store/` | what is in Redis: keys, Lua scripts, run records, a run as JSON |
| `settings` | the environment and `.env`, the intervals, which etl.toml |

`docs/architecture.md` has a run's path, and the table "where do I change …".
"""
