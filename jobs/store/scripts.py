"""What must happen at once in Redis: the Lua scripts of this folder.

A lease is a job's entry `<job>:<execution>` in RQ's started registry. Its score is the lease's end plus
SHIFT, so that RQ's own clean-ups (`rq info`, a dashboard's count) never find one expired: they would
fail the job or use up a retry. Times are Redis's own, so that workers' clocks do not matter.
"""

from hashlib import sha1
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

SHIFT = 10 * 365 * 86400  # seconds
FOLDER = Path(__file__).parent
SHARED = f"local SHIFT = {SHIFT}\n" + (FOLDER / "shared.lua").read_text()


class Script:
    """A Lua script, sent to a Redis the first time it is needed there.

    Args:
        name: Of its file, which follows the functions of `shared.lua`; its first lines say what its arguments are.
    """

    def __init__(self, name: str) -> None:
        self.text = SHARED + (FOLDER / f"{name}.lua").read_text()
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, connection: Redis, *arguments: Any) -> Any:
        """Run the script; all it needs are arguments, as no Redis Cluster is served."""
        try:
            return connection.evalsha(self.digest, 0, *arguments)
        except NoScriptError:
            return connection.eval(self.text, 0, *arguments)


def clock(connection: Redis) -> float:
    """Return Redis's own time, in seconds since the epoch, which moments in Redis are compared with."""
    whole, micros = connection.time()
    return whole + micros / 1_000_000


dequeue = Script("dequeue")
renew = Script("renew")
complete = Script("complete")
rescue_job = Script("rescue_job")
rescue_expired = Script("rescue_expired")
once_every = Script("once_every")
promote = Script("promote")
rate_limit = Script("rate_limit")
begin = Script("begin")
record = Script("record")
close = Script("close")
claim = Script("claim")
renew_claim = Script("renew_claim")
