-- ARGV: run's key, now, states that it may be in (comma separated), then of a stage: the run's attempt that it is of, key
-- and field of its record, the record before the number of its attempt and after it, and, where there is a lease, its
-- queue and entry. Returned: the run's hash, and where the stage's record was written that number as `stage_attempt`.
-- One that was snoozed has not been tried.
local state, attempt = unpack(redis.call('HMGET', ARGV[1], 'state', 'attempt'))
if state and string.find(',' .. ARGV[3] .. ',', ',' .. state .. ',', 1, true) then
  redis.call('HSET', ARGV[1], 'state', 'running')
  redis.call('HSETNX', ARGV[1], 'started', ARGV[2])
  state = 'running'
end
local found = redis.call('HGETALL', ARGV[1])
local is_ours = not ARGV[9] or redis.call('ZSCORE', 'rq:wip:' .. ARGV[9], ARGV[10])
if state == 'running' and ARGV[4] and attempt == ARGV[4] and is_ours then
  local said = redis.call('HGET', ARGV[5], ARGV[6]) or ''
  local tries = tonumber(string.match(said, '"attempt": (%d+)') or '0')
  local was_snoozed = string.find(said, '"state": "waiting"', 1, true) and not string.find(said, '"error": ', 1, true)
  if tries == 0 or not was_snoozed then tries = tries + 1 end
  redis.call('HSET', ARGV[5], ARGV[6], ARGV[7] .. string.format('%d', tries) .. ARGV[8])
  found[#found + 1] = 'stage_attempt'
  found[#found + 1] = string.format('%d', tries)
end
return found
