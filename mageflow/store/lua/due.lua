-- due: take records that a reconciler has to look at, and put each off so that no other reconciler takes it.
--
-- KEYS
--   ...      zset   indexes of shards; more than one only outside a Cluster
-- ARGS
--   limit    text   how many at most
--   lease_ms text   how long they are put off
-- RESULT   keys of records, most overdue first within a shard
-- TTL      none changes
-- ATOMIC   two reconcilers must not take the same record
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = {}
for _, index in ipairs(KEYS) do
  local left = tonumber(ARGV[1]) - #found
  if left <= 0 then break end
  for _, record in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', string.format('%.0f', now), 'LIMIT', 0, left)) do
    redis.call('ZADD', index, string.format('%.0f', now + tonumber(ARGV[2])), record)
    found[#found + 1] = record
  end
end
return found
