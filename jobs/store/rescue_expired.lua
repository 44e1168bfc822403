-- ARGV: now as text, most losses, packed text, names of queues (one per line), lease in s, seconds that must have passed
-- since any worker called this.
-- Queue the jobs of expired leases and the retries that are due. A score far below SHIFT is a lease of a stock worker,
-- and is left alone. A queue that a stock Queue has filled is added to `etl:ready`.
-- Where nobody has called this for half a lease, Redis was away or all workers slept: leases get half a lease more, so
-- that they can be renewed; at most once in three leases, so that a slow cluster can't delay rescues for ever.
local now, lost, due, lease = clock(), {}, 0, tonumber(ARGV[5])
local last = tonumber(redis.call('GET', 'etl:rescued') or '')
if last and now >= last and now - last < tonumber(ARGV[6]) then return {lost, due} end
redis.call('SET', 'etl:rescued', seconds(now))
local back = last and last - now > lease and last - now or 0 -- seconds that the clock was set back
clamp('etl:once:grace', lease * 3000)
if last and now - last > lease / 2 then
  redis.call('SET', 'etl:once:grace', '1', 'NX', 'PX', string.format('%d', lease * 3000))
end
local is_grace = redis.call('PTTL', 'etl:once:grace') > lease * 2500
-- An entry without an execution, of a job that doesn't run, is no lease: it would count as its client's for ever.
local function is_lease(entry)
  local id = string.match(entry, '^(.*):')
  return id and (redis.call('EXISTS', 'rq:execution:' .. entry) == 1
                 or redis.call('HGET', 'rq:job:' .. id, 'status') == 'started')
end
for name in string.gmatch(ARGV[4], '[^\n]+') do
  for _, entry in ipairs(redis.call('ZRANGE', 'rq:wip:' .. name, '0', '-1')) do
    if not is_lease(entry) then redis.call('ZREM', 'rq:wip:' .. name, entry) end
  end
  -- A lease that ends later than any that is given now is of a clock that was ahead.
  local wip, longest = 'rq:wip:' .. name, now + 2 * lease + SHIFT
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', wip, '(' .. seconds(longest), '+inf')) do
    redis.call('ZADD', wip, seconds(now + lease + SHIFT), entry)
  end
  local expired = redis.call('ZRANGEBYSCORE', 'rq:wip:' .. name, seconds(now + SHIFT / 2), seconds(now + SHIFT))
  for i = is_grace and 0 or #expired, 1, -1 do
    -- Its worker was heard last when it renewed the lease.
    local heard = tonumber(redis.call('ZSCORE', wip, expired[i])) - SHIFT - lease
    local became = rescue(name, expired[i], ARGV[1], tonumber(ARGV[2]), ARGV[3], 'worker', heard)
    if became ~= 'gone' then lost[#lost + 1] = expired[i] end
  end
  local scheduled = 'rq:scheduled:' .. name
  if back > 0 then
    for _, id in ipairs(redis.call('ZRANGE', scheduled, '0', '-1')) do
      redis.call('ZINCRBY', scheduled, seconds(-back), id)
    end
  end
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
