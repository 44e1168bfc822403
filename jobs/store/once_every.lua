-- ARGV: key, ms. Returned: whether nobody has had this key in so many ms.
if redis.call('SET', ARGV[1], '1', 'NX', 'PX', ARGV[2]) then return 1 end
clamp(ARGV[1], tonumber(ARGV[2]))
return 0
