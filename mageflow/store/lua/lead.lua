-- lead: take or keep the leader's lease of a namespace.
--
-- KEYS
--   lease    string  who leads
-- ARGS
--   owner    text    who asks
--   ttl_ms   text    for how long
-- RESULT   1 if the owner leads now, else 0
-- TTL      the lease: ttl_ms
-- ATOMIC   two processes must not both find it free
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
