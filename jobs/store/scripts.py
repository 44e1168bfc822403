"""What must happen at once in Redis: the Lua that takes, settles, reaps and releases jobs, and begins and ends runs.

A lease is a job's entry `<job>:<execution>` in RQ's started registry. Its score is the lease's end plus
SHIFT, so that RQ's own clean-ups (`rq info`, a dashboard's count) never find one expired: they would
fail the job or use up a retry. Times are Redis's own, so that workers' clocks do not matter.
"""

from hashlib import sha1
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

SHIFT = 10 * 365 * 86400

SHARED = f"""
local SHIFT = {SHIFT}

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function seconds(t) return string.format('%.3f', t) end

local function is_clients(name) return string.sub(name, 1, 4) == 'etl-' end

local function push(origin, id, front)
  local queue = 'rq:queue:' .. origin
  redis.call('SADD', 'rq:queues', queue)
  redis.call(front and 'LPUSH' or 'RPUSH', queue, id)
  if is_clients(origin) then redis.call('ZADD', 'etl:ready', '0', origin) end
end

local function requeue(origin, id, at, front)
  redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'enqueued_at', at)
  push(origin, id, front)
end

-- A parent that is gone counts as finished; one that ended otherwise, only for a child that allows failures.
local function is_over(parent, tolerant)
  local status = redis.call('HGET', 'rq:job:' .. parent, 'status')
  if not status or status == 'finished' then return true end
  return tolerant and (status == 'failed' or status == 'stopped' or status == 'canceled')
end

-- Queue a deferred job if all it waits for is over.
local function release(id, at)
  local key = 'rq:job:' .. id
  local job = redis.call('HMGET', key, 'status', 'origin', 'dependency_ids', 'allow_dependency_failures',
                         'enqueue_at_front', 'timeout')
  if job[1] ~= 'deferred' or not job[2] then return 0 end
  local parents = job[3] and cjson.decode(job[3]) or {{}}
  for _, parent in ipairs(parents) do
    if not is_over(parent, job[4] == '1') then return 0 end
  end
  for _, parent in ipairs(parents) do redis.call('SREM', 'rq:job:' .. parent .. ':dependents', id) end
  redis.call('ZREM', 'rq:deferred:' .. job[2], id)
  if not job[6] then redis.call('HSET', key, 'timeout', '180') end
  requeue(job[2], id, at, job[5] == '1')
  return 1
end

local function release_all(ids, at)
  local released = 0
  for _, id in ipairs(ids) do released = released + release(id, at) end
  return released
end

local function keep_execution(id, execution)
  redis.call('EXPIRE', 'rq:execution:' .. id .. ':' .. execution, '86400')
  redis.call('EXPIRE', 'rq:executions:' .. id, '86400')
end

local function end_execution(id, execution)
  local key = 'rq:execution:' .. id .. ':' .. execution
  local worker = 'rq:worker:' .. (redis.call('HGET', key, 'worker_name') or '')
  if redis.call('HGET', worker, 'current_job') == id then redis.call('HDEL', worker, 'current_job') end
  redis.call('DEL', key)
  redis.call('ZREM', 'rq:executions:' .. id, execution)
end

-- A job whose worker is gone goes back to the front of its queue; where that counts, at most so often.
-- packed: why it fails in the end, as RQ packs it into a result.
local function lose(name, entry, at, most, packed)
  if redis.call('ZREM', 'rq:wip:' .. name, entry) == 0 then return 'gone' end
  local id, execution = string.match(entry, '^(.*):(.*)$')
  local key = 'rq:job:' .. id
  end_execution(id, execution)
  local job = redis.call('HMGET', key, 'status', 'failure_ttl')
  if job[1] ~= 'started' then return 'gone' end
  if most == 0 or redis.call('HINCRBY', key, 'etl_losses', 1) < most then
    requeue(name, id, at, true)
    return 'queued'
  end
  local ttl = tonumber(job[2] or '') or 31536000
  redis.call('HDEL', key, 'etl_losses', 'exc_info')
  redis.call('HSET', key, 'status', 'failed', 'ended_at', at)
  redis.call('XADD', 'rq:results:' .. id, 'MAXLEN', '10', '*', 'type', '2', 'worker_name', '', 'exc_string', packed)
  redis.call('ZADD', 'rq:failed:' .. name, ttl < 0 and '-1' or seconds(clock() + ttl), id)
  local children = redis.call('SMEMBERS', key .. ':dependents')
  if ttl > 0 then
    local kept = {{key, key .. ':dependents', 'rq:job::' .. id .. ':dependencies', 'rq:results:' .. id}}
    for _, each in ipairs(kept) do redis.call('EXPIRE', each, string.format('%d', ttl)) end
  end
  release_all(children, at)
  return 'failed'
end
"""

# ARGV: lease s, execution id, worker's name or '', now as text, now in seconds, whether all clients' queues are served,
# names of other queues that are (one per line).
# The ring of turns is `etl:ready`: the queues that hold jobs, by name. Whoever pushes a job adds its queue, and a queue
# found empty or paused leaves, so what a look costs does not grow with the number of clients. The queue after the one
# served last is served next, by whichever worker asks; a client of weight 3 is served three times in its turn.
DEQUEUE = """
local served = {}
for name in string.gmatch(ARGV[7], '[^\\n]+') do
  served[name] = true
  if redis.call('EXISTS', 'rq:queue:' .. name) == 1 then redis.call('ZADD', 'etl:ready', '0', name) end
end
local ready = redis.call('ZCARD', 'etl:ready')
if ready == 0 or redis.call('EXISTS', 'rq:suspended') == 1 then return false end
local turn = redis.call('HMGET', 'etl:turn', 'name', 'left')
local left, weight = tonumber(turn[2] or 0), 1

local function first(from)
  return redis.call('ZRANGEBYLEX', 'etl:ready', from, '+', 'LIMIT', '0', '1')[1]
end

-- What a queue has to give: its first job, or none; an empty one and a paused one leave the ring.
local function offer(name)
  weight = 1
  if is_clients(name) then
    local client = 'etl:client:' .. string.sub(name, 5)
    local limits = redis.call('HMGET', client, 'paused', 'limit', 'max_active', 'weight')
    if limits[1] and limits[1] ~= '' and limits[1] ~= '0' then
      redis.call('ZREM', 'etl:ready', name)
      return nil
    end
    weight = tonumber(limits[4] or '') or 1
    local cap = tonumber(limits[2] or '') or tonumber(limits[3] or '')
    if cap and redis.call('ZCARD', 'rq:wip:' .. name) >= cap then return nil end
  end
  local queue = 'rq:queue:' .. name
  local id = redis.call('LINDEX', queue, '0')
  while id do
    local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'data')
    if job[1] == 'queued' and job[2] then return id end
    redis.call('LPOP', queue)
    id = redis.call('LINDEX', queue, '0')
  end
  redis.call('ZREM', 'etl:ready', name)
  return nil
end

-- The lease comes first: a Redis without memory refuses it, and nothing has happened.
local function lend(name, id)
  local key, execution = 'rq:job:' .. id, ARGV[2]
  local now = clock()
  redis.call('ZADD', 'rq:wip:' .. name, seconds(now + ARGV[1] + SHIFT), id .. ':' .. execution)
  redis.call('LPOP', 'rq:queue:' .. name)
  redis.call('HSET', key, 'status', 'started', 'started_at', ARGV[4], 'last_heartbeat', ARGV[4], 'worker_name', ARGV[3])
  redis.call('PERSIST', key)
  redis.call('HSET', 'rq:execution:' .. id .. ':' .. execution, 'id', execution, 'created_at', ARGV[5],
             'last_heartbeat', ARGV[5], 'worker_name', ARGV[3])
  redis.call('ZADD', 'rq:executions:' .. id, seconds(now + SHIFT), execution)
  keep_execution(id, execution)
  if ARGV[3] ~= '' then
    redis.call('HSET', 'rq:worker:' .. ARGV[3], 'state', 'busy', 'current_job', id, 'current_job_working_time', '0')
  end
  redis.call('HSET', 'etl:turn', 'name', name, 'left', name == turn[1] and left > 0 and left - 1 or weight - 1)
  return {name, id, redis.call('HGETALL', key)}
end

local from = not turn[1] and '-' or (left > 0 and '[' or '(') .. turn[1]
for _ = 1, ready do
  local name = first(from) or first('-')
  if not name then return false end
  local id = (served[name] or (ARGV[6] == '1' and is_clients(name))) and offer(name)
  if id then return lend(name, id) end
  from = '(' .. name
end
return false
"""

# ARGV: queue, entry, lease s, worker's name, now as text, now in seconds, seconds of work so far.
RENEW = """
local wip = 'rq:wip:' .. ARGV[1]
if not redis.call('ZSCORE', wip, ARGV[2]) then return 0 end
redis.call('ZADD', wip, seconds(clock() + ARGV[3] + SHIFT), ARGV[2])
local id, execution = string.match(ARGV[2], '^(.*):(.*)$')
redis.call('HSET', 'rq:job:' .. id, 'last_heartbeat', ARGV[5])
redis.call('HSET', 'rq:execution:' .. ARGV[2], 'last_heartbeat', ARGV[6])
keep_execution(id, execution)
redis.call('HSET', 'rq:worker:' .. ARGV[4], 'current_job_working_time', ARGV[7])
return 1
"""

# ARGV: queue, entry, id, whether the job has ended, now as text, then commands, each after its number of words.
# RQ's own methods say what is written about a job; here it is written, if the lease still stands.
COMPLETE = """
if not redis.call('ZSCORE', 'rq:wip:' .. ARGV[1], ARGV[2]) then return 0 end
local children = ARGV[4] == '1' and redis.call('SMEMBERS', 'rq:job:' .. ARGV[3] .. ':dependents') or {}
local i = 6
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + words))
  i = i + words + 1
end
release_all(children, ARGV[5])
return 1
"""

# ARGV: queue, entry, now as text, most losses (0: don't count), packed text.
LOSE = "return lose(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5])"

# ARGV: now as text, most losses, packed text, names of queues (one per line), lease in s, seconds that must have passed
# since the last look, whoever made it.
# Expired leases and due retries of every queue. Scores far below SHIFT are a stock worker's: its own affair. A queue
# that was filled past us, as by a stock Queue, gets its place in the ring of turns.
# Where no pass was made for half a lease, Redis was away or all slept: who held a lease then first gets the time to
# renew it, once in a while, so that a slow cluster can't put this off for ever.
RESCUE = """
local now, lost, due, lease = clock(), {}, 0, tonumber(ARGV[5])
local last = tonumber(redis.call('GET', 'etl:passed') or '')
if last and now >= last and now - last < tonumber(ARGV[6]) then return {lost, due} end
redis.call('SET', 'etl:passed', seconds(now))
if last and now - last > lease / 2 then
  redis.call('SET', 'etl:grace', seconds(now + lease / 2), 'NX', 'PX', string.format('%d', lease * 3000))
end
local patient = now < (tonumber(redis.call('GET', 'etl:grace') or '') or 0)
for name in string.gmatch(ARGV[4], '[^\\n]+') do
  local ended = redis.call('ZRANGEBYSCORE', 'rq:wip:' .. name, seconds(now + SHIFT / 2), seconds(now + SHIFT))
  for i = patient and 0 or #ended, 1, -1 do
    if lose(name, ended[i], ARGV[1], tonumber(ARGV[2]), ARGV[3]) ~= 'gone' then lost[#lost + 1] = ended[i] end
  end
  local scheduled = 'rq:scheduled:' .. name
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, '-inf', seconds(now), 'LIMIT', '0', '1000')) do
    redis.call('ZREM', scheduled, id)
    local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'enqueue_at_front_on_retry')
    if job[1] == 'scheduled' then
      requeue(name, id, ARGV[1], job[2] == '1')
      due = due + 1
    end
  end
  if is_clients(name) and redis.call('EXISTS', 'rq:queue:' .. name) == 1 then
    redis.call('ZADD', 'etl:ready', '0', name)
  end
end
return {lost, due}
"""

# ARGV: now as text, whether to look for lost ones, key of the ids of an active run's jobs. Queued are: children whose
# parents are over, and, after what no script here can cause (a half-restored Redis, a hand in the data), jobs that
# are in no list. Returned: how many, and how many jobs there are that have not ended.
PROMOTE = """
local function is_listed(id, status, origin)
  if status == 'queued' then return redis.call('LPOS', 'rq:queue:' .. origin, id) end
  if status == 'scheduled' then return redis.call('ZSCORE', 'rq:scheduled:' .. origin, id) end
  if status ~= 'started' then return true end
  for _, execution in ipairs(redis.call('ZRANGE', 'rq:executions:' .. id, '0', '-1')) do
    if redis.call('ZSCORE', 'rq:wip:' .. origin, id .. ':' .. execution) then return true end
  end
  return false
end

local released, open = 0, 0
for _, id in ipairs(redis.call('SMEMBERS', ARGV[3])) do
  local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'origin')
  local status = job[1]
  if status == 'deferred' then
    released = released + release(id, ARGV[1])
  elseif ARGV[2] == '1' and job[2] and not is_listed(id, status, job[2]) then
    requeue(job[2], id, ARGV[1], true)
    released = released + 1
  end
  if status == 'queued' or status == 'started' or status == 'deferred' or status == 'scheduled' then open = open + 1 end
end
return {released, open}
"""


# ARGV: key of the source, seconds between two requests, seconds that its caller would wait at most.
# Requests get moments of their own, evenly spaced, over all workers. Returned: whether one was given, and the wait for
# it, in seconds as text; who would have to wait longer is given none, and told to come back then.
RATE_LIMIT = """
local now, apart = clock(), tonumber(ARGV[2])
local at = math.max(now, tonumber(redis.call('GET', ARGV[1]) or '') or 0)
local wait = at - now
if wait > tonumber(ARGV[3]) then return {0, seconds(wait)} end
redis.call('SET', ARGV[1], string.format('%.6f', at + apart), 'PX', string.format('%d', (wait + apart) * 1000 + 1))
return {1, string.format('%.6f', wait)}
"""

# ARGV: run's key, active, holder, stages, jobs, held, last; then run id, wanted states (comma separated), history in s,
# how long stages are kept in s, the attempt that ends or '', field, value, …
# Closing is one step: a run that has ended keeps its first ending, and its place is free at the same moment.
CLOSE = """
local run, active, holder, stages, jobs, held, last = unpack(ARGV, 1, 7)
local id, states, history, kept, attempt = unpack(ARGV, 8, 12)
local state = redis.call('HGET', run, 'state')
if not state or not string.find(',' .. states .. ',', ',' .. state .. ',', 1, true) then return state end
if attempt ~= '' and redis.call('HGET', run, 'attempt') ~= attempt then return 'another attempt' end
for i = 13, #ARGV, 2 do redis.call('HSET', run, ARGV[i], ARGV[i + 1]) end
redis.call('SREM', active, id)
if redis.call('GET', holder) == id then redis.call('DEL', holder) end
redis.call('DEL', jobs)
redis.call('ZREM', held, id)
local of = redis.call('HMGET', run, 'client', 'pipeline', 'state', 'start')
if (of[4] or '') == '' then redis.call('HSET', last, of[1] .. '/' .. of[2], id .. ' ' .. of[3]) end
redis.call('EXPIRE', run, history)
redis.call('EXPIRE', stages, kept)
return 'closed'
"""

# ARGV: run's key, now. A stage's first step: it says whether the run still wants it.
BEGIN = """
if redis.call('HGET', ARGV[1], 'state') == 'queued' then
  redis.call('HSET', ARGV[1], 'state', 'running')
  redis.call('HSETNX', ARGV[1], 'started', ARGV[2])
end
return redis.call('HGETALL', ARGV[1])
"""

# ARGV: run's key, stages, field, value, how long stages are kept in s. A stage of a run that has ended may come late.
RECORD = """
local left = redis.call('TTL', ARGV[1])
if left == -2 then return end
redis.call('HSET', ARGV[2], ARGV[3], ARGV[4])
if left >= 0 then redis.call('EXPIRE', ARGV[2], math.min(left, tonumber(ARGV[5]))) end
"""


class Script:
    """A Lua script, sent to a Redis the first time it is needed there.

    Args:
        body: What follows the shared functions.
    """

    def __init__(self, body: str) -> None:
        self.text = SHARED + body
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, connection: Redis, *arguments: Any) -> Any:
        """Run the script; all it needs are arguments, as no Redis Cluster is served."""
        try:
            return connection.evalsha(self.digest, 0, *arguments)
        except NoScriptError:
            return connection.eval(self.text, 0, *arguments)


dequeue = Script(DEQUEUE)
renew = Script(RENEW)
complete = Script(COMPLETE)
lose = Script(LOSE)
rescue = Script(RESCUE)
promote = Script(PROMOTE)
rate_limit = Script(RATE_LIMIT)
close = Script(CLOSE)
begin = Script(BEGIN)
record = Script(RECORD)
