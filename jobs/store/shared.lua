-- Redis's own clock, in seconds, so that workers' clocks do not matter.
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

-- A parent that is gone counts as finished; one that failed is over only for a child that allows failures.
local function is_over(parent, tolerant)
  local status = redis.call('HGET', 'rq:job:' .. parent, 'status')
  if not status or status == 'finished' then return true end
  return tolerant and (status == 'failed' or status == 'stopped' or status == 'canceled')
end

-- Queue a deferred job if all its parents are over. Returned: how many jobs were queued.
local function promote(id, at)
  local key = 'rq:job:' .. id
  local job = redis.call('HMGET', key, 'status', 'origin', 'dependency_ids', 'allow_dependency_failures',
                         'enqueue_at_front', 'timeout')
  if job[1] ~= 'deferred' or not job[2] then return 0 end
  local parents = (job[3] or '') ~= '' and cjson.decode(job[3]) or {}
  for _, parent in ipairs(parents) do
    if not is_over(parent, job[4] == '1') then return 0 end
  end
  for _, parent in ipairs(parents) do redis.call('SREM', 'rq:job:' .. parent .. ':dependents', id) end
  redis.call('ZREM', 'rq:deferred:' .. job[2], id)
  if not job[6] then redis.call('HSET', key, 'timeout', '180') end
  requeue(job[2], id, at, job[5] == '1')
  return 1
end

local function promote_all(ids, at)
  local promoted = 0
  for _, id in ipairs(ids) do promoted = promoted + promote(id, at) end
  return promoted
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

-- A Redis whose clock is set back would keep a key for so much longer, and one that was written by hand for ever.
local function clamp(key, ms)
  local left = redis.call('PTTL', key)
  if left == -1 or left > ms then redis.call('PEXPIRE', key, string.format('%d', ms)) end
end

-- A job of a run is `<run>-<partition>-<stage>-<attempt>`.
local function stage_of(id) return string.match(id, '^(%w+)%-(%d+)%-(%l+)%-%d+$') end

-- A stage whose process can't say any more how it ended is not running. error: as JSON, or nil.
local function end_stage(id, execution, state, error)
  local run, partition, stage = stage_of(id)
  if not run then return end
  local key, field = 'etl:run:' .. run .. ':stages', partition .. ':' .. stage
  local said, running = redis.call('HGET', key, field), '{"state": "running", "by": "' .. execution .. '", '
  if not said or string.sub(said, 1, #running) ~= running then return end
  local why = error and '"error": ' .. error .. ', "exit": 1, ' or ''
  redis.call('HSET', key, field, '{"state": "' .. state .. '", ' .. why .. string.sub(said, #running + 1))
end

-- Keep with the run that a worker, or its process alone, was lost with a job in hand. at: in seconds.
local function keep_loss(id, execution, what, at)
  local run, partition, stage = stage_of(id)
  local left = run and redis.call('TTL', 'etl:run:' .. run)
  if not run or left == -2 then return end
  local key, name = 'etl:run:' .. run .. ':lost', redis.call('HGET', 'rq:execution:' .. id .. ':' .. execution, 'worker_name')
  local worker = name and name ~= '' and redis.call('HMGET', 'rq:worker:' .. name, 'hostname', 'pid') or {}
  local said = {'"worker": ' .. cjson.encode(name or ''), '"host": ' .. cjson.encode(worker[1] or ''),
                '"pid": ' .. cjson.encode(worker[2] or ''), '"what": "' .. what .. '"', '"partition": ' .. partition,
                '"stage": "' .. stage .. '"', '"at": ' .. seconds(at), '"resumed": null'}
  redis.call('HSET', key, id .. ':' .. execution, '{' .. table.concat(said, ', ') .. '}')
  redis.call('HSET', 'rq:job:' .. id, 'etl_lost', execution)
  if left >= 0 then redis.call('EXPIRE', key, math.min(left, 604800)) end
end

-- A job that a worker was lost with begins again.
local function end_loss(id, execution, now)
  local run = stage_of(id)
  redis.call('HDEL', 'rq:job:' .. id, 'etl_lost')
  local key, field = 'etl:run:' .. (run or '') .. ':lost', id .. ':' .. execution
  local said = run and redis.call('HGET', key, field)
  if said then
    redis.call('HSET', key, field, (string.gsub(said, '"resumed": null', '"resumed": ' .. seconds(now), 1)))
  end
end

-- Put a job whose worker is gone back to the front of its queue; one that has lost `most` workers fails.
-- most: 0 counts nothing. packed: the error of a job that fails, as RQ packs it into a result. what: was lost, `worker`
-- or its `process`. lost: when, in seconds.
local function rescue(name, entry, at, most, packed, what, lost)
  if redis.call('ZREM', 'rq:wip:' .. name, entry) == 0 then return 'gone' end
  local id, execution = string.match(entry, '^(.*):(.*)$')
  if not id then return 'gone' end
  local key = 'rq:job:' .. id
  local job = redis.call('HMGET', key, 'status', 'failure_ttl')
  if most > 0 and job[1] == 'started' then keep_loss(id, execution, what, lost) end
  end_execution(id, execution)
  if job[1] ~= 'started' then return 'gone' end
  if most == 0 or redis.call('HINCRBY', key, 'etl_losses', 1) < most then
    end_stage(id, execution, 'waiting', most > 0 and '"lost its worker"' or nil)
    requeue(name, id, at, true)
    redis.call('ZADD', 'etl:rescued:jobs', 'NX', string.format('%.6f', clock()), name .. ' ' .. id)
    return 'queued'
  end
  local ttl = tonumber(job[2] or '') or 31536000
  end_stage(id, execution, 'failed')
  redis.call('HDEL', key, 'etl_losses', 'etl_lost', 'exc_info')
  redis.call('HSET', key, 'status', 'failed', 'ended_at', at)
  redis.call('XADD', 'rq:results:' .. id, 'MAXLEN', '10', '*', 'type', '2', 'worker_name', '', 'exc_string', packed)
  redis.call('ZADD', 'rq:failed:' .. name, ttl < 0 and '-1' or seconds(clock() + ttl), id)
  local children = redis.call('SMEMBERS', key .. ':dependents')
  if ttl > 0 then
    local kept = {key, key .. ':dependents', 'rq:job::' .. id .. ':dependencies', 'rq:results:' .. id}
    for _, each in ipairs(kept) do redis.call('EXPIRE', each, string.format('%d', ttl)) end
  end
  promote_all(children, at)
  return 'failed'
end
