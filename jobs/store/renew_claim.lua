-- ARGV: claim's key, token, ms (0 ends it), run, holder's key or ''. A holder without an end is that of an active run.
if redis.call('GET', ARGV[1]) ~= ARGV[2] then return 0 end
local is_kept = ARGV[5] ~= '' and redis.call('GET', ARGV[5]) == ARGV[4] and redis.call('PTTL', ARGV[5]) >= 0
for _, key in ipairs(is_kept and {ARGV[1], ARGV[5]} or {ARGV[1]}) do
  if ARGV[3] == '0' then redis.call('DEL', key) else redis.call('PEXPIRE', key, ARGV[3]) end
end
return 1
