-- ARGV: queue, entry, id, whether the job has ended, now as text, what becomes of a stage that couldn't say how it ended or
-- '', why as JSON, then commands, each after its number of words.
-- RQ's own methods say what is written about a job; it is written here, if the lease is still valid.
if not redis.call('ZSCORE', 'rq:wip:' .. ARGV[1], ARGV[2]) then return 0 end
local children = ARGV[4] == '1' and redis.call('SMEMBERS', 'rq:job:' .. ARGV[3] .. ':dependents') or {}
if ARGV[6] ~= '' then end_stage(ARGV[3], string.match(ARGV[2], '([^:]*)$'), ARGV[6], ARGV[7]) end
local i = 8
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + words))
  i = i + words + 1
end
promote_all(children, ARGV[5])
return 1
