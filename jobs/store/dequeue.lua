-- ARGV: lease s, execution id, worker's name or '', now as text, now in seconds, whether all clients' queues are served,
-- names of other queues that are (one per line).
-- `etl:ready` lists the queues that hold jobs, by name. Whoever pushes a job adds its queue, and a queue found empty or
-- paused is removed, so the cost of a call does not grow with the number of clients. Queues are served round robin over
-- all workers: next is the one after `etl:served`; a client of weight 3 is served three times before the next one is.
local served = {}
for name in string.gmatch(ARGV[7], '[^\n]+') do
  served[name] = true
  if redis.call('EXISTS', 'rq:queue:' .. name) == 1 then redis.call('ZADD', 'etl:ready', '0', name) end
end
local ready = redis.call('ZCARD', 'etl:ready')
if ready == 0 or redis.call('EXISTS', 'rq:suspended') == 1 then return false end
local last = redis.call('HMGET', 'etl:served', 'name', 'left')
local left, weight = tonumber(last[2] or 0), 1

local function first(from)
  return redis.call('ZRANGEBYLEX', 'etl:ready', from, '+', 'LIMIT', '0', '1')[1]
end

-- Return the first job of a queue that may run now, or none; an empty or paused queue leaves the list.
local function first_job(name)
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

-- The lease is written first: a Redis without memory refuses it, and nothing has changed.
local function lease(name, id)
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
  redis.call('HSET', 'etl:served', 'name', name, 'left', name == last[1] and left > 0 and left - 1 or weight - 1)
  return {name, id, redis.call('HGETALL', key)}
end

local from = not last[1] and '-' or (left > 0 and '[' or '(') .. last[1]
for _ = 1, ready do
  local name = first(from) or first('-')
  if not name then return false end
  local id = (served[name] or (ARGV[6] == '1' and is_clients(name))) and first_job(name)
  if id then return lease(name, id) end
  from = '(' .. name
end
return false
