-- ARGV: queue, entry, lease s, worker's name, now as text, now in seconds, seconds of work so far.
local wip = 'rq:wip:' .. ARGV[1]
if not redis.call('ZSCORE', wip, ARGV[2]) then return 0 end
redis.call('ZADD', wip, seconds(clock() + ARGV[3] + SHIFT), ARGV[2])
local id, execution = string.match(ARGV[2], '^(.*):(.*)$')
redis.call('HSET', 'rq:job:' .. id, 'last_heartbeat', ARGV[5])
redis.call('HSET', 'rq:execution:' .. ARGV[2], 'last_heartbeat', ARGV[6])
keep_execution(id, execution)
redis.call('HSET', 'rq:worker:' .. ARGV[4], 'current_job_working_time', ARGV[7])
return 1
