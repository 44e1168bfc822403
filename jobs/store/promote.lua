-- ARGV: now as text, whether to look for lost jobs, key of the ids of an active run's jobs.
-- Queue the run's jobs whose parents are over, and its lost ones: those that are in no list, after what no script here
-- can cause (a half-restored Redis, data changed by hand). Returned: how many were queued, and how many jobs have not
-- ended.
local function is_listed(id, status, origin)
  if status == 'queued' then return redis.call('LPOS', 'rq:queue:' .. origin, id) end
  if status == 'scheduled' then return redis.call('ZSCORE', 'rq:scheduled:' .. origin, id) end
  if status ~= 'started' then return true end
  for _, execution in ipairs(redis.call('ZRANGE', 'rq:executions:' .. id, '0', '-1')) do
    if redis.call('ZSCORE', 'rq:wip:' .. origin, id .. ':' .. execution) then return true end
  end
  return false
end

local promoted, open = 0, 0
for _, id in ipairs(redis.call('SMEMBERS', ARGV[3])) do
  local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'origin')
  local status = job[1]
  if status == 'deferred' then
    promoted = promoted + promote(id, ARGV[1])
  elseif ARGV[2] == '1' and job[2] and not is_listed(id, status, job[2]) then
    requeue(job[2], id, ARGV[1], true)
    promoted = promoted + 1
  end
  if status == 'queued' or status == 'started' or status == 'deferred' or status == 'scheduled' then open = open + 1 end
end
return {promoted, open}
