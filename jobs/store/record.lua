-- ARGV: run's key, stages, field, value, how long stages are kept in s, then, where an execution says it, its queue and
-- its entry. A stage may end after its run has; one that has lost its lease says nothing any more.
local left = redis.call('TTL', ARGV[1])
if left == -2 then return end
if ARGV[6] and not redis.call('ZSCORE', 'rq:wip:' .. ARGV[6], ARGV[7]) then return end
redis.call('HSET', ARGV[2], ARGV[3], ARGV[4])
if left >= 0 then redis.call('EXPIRE', ARGV[2], math.min(left, tonumber(ARGV[5]))) end
