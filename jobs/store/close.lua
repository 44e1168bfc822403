-- ARGV: run, states it may be in (comma separated), history in s, how long stages are kept in s, the attempt that ends
-- or '', field, value, …
-- One step: a run keeps its first ending, and at that moment its holder is free and the runs that wait for it are listed
-- in `etl:held:ready`.
local id, states, history, kept, attempt = unpack(ARGV, 1, 5)
local run = 'etl:run:' .. id
local state, is_attempt, client, pipeline, start =
  unpack(redis.call('HMGET', run, 'state', 'attempt', 'client', 'pipeline', 'start'))
if not state or not string.find(',' .. states .. ',', ',' .. state .. ',', 1, true) then return state end
if attempt ~= '' and is_attempt ~= attempt then return 'another attempt' end
for i = 6, #ARGV, 2 do redis.call('HSET', run, ARGV[i], ARGV[i + 1]) end
local has_window = start and start ~= ''
local name = client .. ':' .. pipeline .. (has_window and ':' .. start or '')
if redis.call('GET', 'etl:holder:' .. name) == id then redis.call('DEL', 'etl:holder:' .. name) end
redis.call('SREM', 'etl:active', id)
redis.call('ZREM', 'etl:held', id)
redis.call('ZREM', 'etl:held:' .. name, id)
for _, waiter in ipairs(redis.call('SMEMBERS', run .. ':waiters')) do redis.call('SADD', 'etl:held:ready', waiter) end
redis.call('DEL', run .. ':jobs', run .. ':waiters')
local ended = redis.call('HGET', run, 'state')
if not has_window then
  redis.call('HSET', 'etl:last', client .. '/' .. pipeline, id .. ' ' .. ended)
  if ended == 'succeeded' then
    redis.call('HSET', 'etl:succeeded', client .. '/' .. pipeline, redis.call('HGET', run, 'ended'))
  end
elseif ended == 'succeeded' then
  redis.call('HDEL', 'etl:windows:failed', client .. '/' .. pipeline .. '/' .. start)
elseif ended == 'failed' and redis.call('HLEN', 'etl:windows:failed') < 1000 then
  redis.call('HSET', 'etl:windows:failed', client .. '/' .. pipeline .. '/' .. start, id)
end
redis.call('EXPIRE', run, history)
redis.call('EXPIRE', run .. ':stages', kept)
redis.call('EXPIRE', run .. ':lost', kept)
return 'closed'
