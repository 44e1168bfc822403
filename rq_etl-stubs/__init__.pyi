from etl.errors import AlreadyRunning, EtlError, RedisAway
from etl.transform.reject import reject
from jobs.api import Reject, Rows, Run, submit, wait
from jobs.enqueue import enqueue

__all__ = ["AlreadyRunning", "EtlError", "RedisAway", "Reject", "Rows", "Run", "enqueue", "reject", "submit", "wait"]
