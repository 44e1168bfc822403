-- ARGV: run's key, now, states that it may be in (comma separated). Returned: the run's hash.
local state = redis.call('HGET', ARGV[1], 'state')
if state and string.find(',' .. ARGV[3] .. ',', ',' .. state .. ',', 1, true) then
  redis.call('HSET', ARGV[1], 'state', 'running')
  redis.call('HSETNX', ARGV[1], 'started', ARGV[2])
end
return redis.call('HGETALL', ARGV[1])
