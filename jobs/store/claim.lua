-- ARGV: claim's key, token, ms, run's key, its state, attempt and end as they were read, run, holder's key or ''.
local is = redis.call('HMGET', ARGV[4], 'state', 'attempt', 'ended')
for i = 1, 3 do
  if (is[i] or '') ~= ARGV[4 + i] then return {'changed', is[1] or ''} end
end
clamp(ARGV[1], tonumber(ARGV[3]))
if redis.call('EXISTS', ARGV[1]) == 1 then return {'held', ARGV[8]} end
if ARGV[9] ~= '' then
  local holder = redis.call('GET', ARGV[9])
  local is_active = holder and redis.call('SISMEMBER', 'etl:active', holder) == 1
  if holder and (is_active or redis.call('PTTL', ARGV[9]) >= 0) then
    if not is_active then clamp(ARGV[9], tonumber(ARGV[3])) end
    return {'held', holder}
  end
  redis.call('SET', ARGV[9], ARGV[8], 'PX', ARGV[3])
end
redis.call('SET', ARGV[1], ARGV[2], 'PX', ARGV[3])
return {'claimed', ''}
