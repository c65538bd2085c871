-- lead: take, keep or give back the leader's lease of a namespace.
--
-- KEYS
--   lease    string  who leads
-- ARGS
--   owner    text    who asks
--   ttl_ms   text    for how long; 0 gives it back
-- RESULT   {0 if the owner leads now (or has released the lease), else the ms that the leader still has, at least 1;
--          seconds and microseconds of the server's clock, with which the caller compares its own}
-- TTL      the lease: ttl_ms
-- ATOMIC   two processes must not both find it free, and none may give back another's
local clock = redis.call('TIME')
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {math.max(1, redis.call('PTTL', KEYS[1])), clock[1], clock[2]} end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return {0, clock[1], clock[2]}
