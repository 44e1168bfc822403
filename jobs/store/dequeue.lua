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
-- Only members of one score are in the order of their names; who called this sets the others aside.
if redis.call('ZCOUNT', 'etl:ready', '0', '0') ~= ready then return redis.error_reply('a turn has a score but 0') end
-- Return whether a client's queue may give a job now: whether it is paused, and whether it is at its cap.
local weight = 1
local function limits_of(name)
  weight = 1
  if not is_clients(name) then return false, false end
  local client = 'etl:client:' .. string.sub(name, 5)
  local limits = redis.call('HMGET', client, 'paused', 'limit', 'max_active', 'weight')
  weight = tonumber(limits[4] or '') or 1
  local cap = tonumber(limits[2] or '') or tonumber(limits[3] or '')
  local is_paused = limits[1] and limits[1] ~= '' and limits[1] ~= '0'
  return is_paused, cap and redis.call('ZCARD', 'rq:wip:' .. name) >= cap
end

local last = redis.call('HMGET', 'etl:served', 'name', 'left')
local left = tonumber(last[2] or '') or 0

local function first(from)
  return redis.call('ZRANGEBYLEX', 'etl:ready', from, '+', 'LIMIT', '0', '1')[1]
end

-- Return the first job of a queue that may run now, or none; an empty or paused queue leaves the list.
local function first_job(name)
  local is_paused, is_full = limits_of(name)
  if is_paused then redis.call('ZREM', 'etl:ready', name) end
  if is_paused or is_full then return nil end
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
local function lease(name, id, is_rescued)
  local key, execution = 'rq:job:' .. id, ARGV[2]
  local now = clock()
  redis.call('ZADD', 'rq:wip:' .. name, seconds(now + ARGV[1] + SHIFT), id .. ':' .. execution)
  if is_rescued then
    redis.call('LREM', 'rq:queue:' .. name, '1', id)
  else
    redis.call('LPOP', 'rq:queue:' .. name)
  end
  redis.call('HSET', key, 'status', 'started', 'started_at', ARGV[4], 'last_heartbeat', ARGV[4], 'worker_name', ARGV[3])
  redis.call('PERSIST', key)
  local lost = redis.call('HGET', key, 'etl_lost')
  if lost then end_loss(id, lost, now) end
  redis.call('HSET', 'rq:execution:' .. id .. ':' .. execution, 'id', execution, 'created_at', ARGV[5],
             'last_heartbeat', ARGV[5], 'worker_name', ARGV[3])
  redis.call('ZADD', 'rq:executions:' .. id, seconds(now + SHIFT), execution)
  keep_execution(id, execution)
  if ARGV[3] ~= '' then
    redis.call('HSET', 'rq:worker:' .. ARGV[3], 'state', 'busy', 'current_job', id, 'current_job_working_time', '0')
  end
  if is_rescued then return {name, id, redis.call('HGETALL', key)} end
  left = name == last[1] and left > 0 and math.min(left, weight) or weight
  redis.call('HSET', 'etl:served', 'name', name, 'left', left - 1)
  return {name, id, redis.call('HGETALL', key)}
end

local function is_served(name) return served[name] or (ARGV[6] == '1' and is_clients(name)) end

-- What a dead worker had in hand comes before all turns; it takes none from its client.
for _, member in ipairs(redis.call('ZRANGE', 'etl:rescued:jobs', '0', '-1')) do
  local name, id = string.match(member, '^(.*) ([^ ]*)$')
  local job = name and redis.call('HMGET', 'rq:job:' .. id, 'status', 'data') or {}
  if job[1] ~= 'queued' or not job[2] then
    redis.call('ZREM', 'etl:rescued:jobs', member)
  elseif is_served(name) then
    local is_paused, is_full = limits_of(name)
    if not is_paused and not is_full then
      local is_there = redis.call('LPOS', 'rq:queue:' .. name, id)
      local found = is_there and lease(name, id, true)
      redis.call('ZREM', 'etl:rescued:jobs', member)
      if found then return found end
    end
  end
end

local from = not last[1] and '-' or (left > 0 and '[' or '(') .. last[1]
for _ = 1, ready do
  local name = first(from) or first('-')
  if not name then return false end
  if is_served(name) then
    local id = first_job(name)
    if id then return lease(name, id) end
  elseif redis.call('EXISTS', 'rq:queue:' .. name) == 0 then
    redis.call('ZREM', 'etl:ready', name)
  end
  from = '(' .. name
end
return false
