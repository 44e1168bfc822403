-- ARGV: key of the source, seconds between two requests, seconds that its caller would wait at most.
-- Every request gets its own moment, evenly spaced, over all workers. Returned: whether one was given, and the seconds
-- until then, as text; a caller that would have to wait longer gets none, and asks again after that time.
local now, apart = clock(), tonumber(ARGV[2])
local at = math.max(now, tonumber(redis.call('GET', ARGV[1]) or '') or 0)
-- Nobody is given a moment later than this, unless many requests of one stage wait: the clock was set back.
if at - now > math.max(60, 1000 * apart) then at = now end
local wait = at - now
if wait > tonumber(ARGV[3]) then return {0, seconds(wait)} end
redis.call('SET', ARGV[1], string.format('%.6f', at + apart), 'PX', string.format('%d', (wait + apart) * 1000 + 1))
return {1, string.format('%.6f', wait)}
