-- census: the counts of one or more shards, for the cluster view.
--
-- KEYS
--   ...      text   what the keys of each shard's counts begin with; more than one only outside a Cluster
-- ARGS
--   drop     text   one letter for each shard: 1 drops its entries of expired records, 0 counts them too
--   ...      text   <kind>:<status> pairs to count
-- RESULT   {{signatures per pair}, {chains active, ms of the oldest}, {swarms active, ms of the oldest},
--          {pending, running, done, failed items}}
-- TTL      none changes; entries of expired records are dropped from the shards that drop names, those of active flows
--          from all, the oldest hundred per call
-- ATOMIC   the numbers of one reading belong together
-- INCLUDE  damage moving present
refuse_while_moving(KEYS[1])  -- on a Cluster there is no other
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local signatures, flows, items = {}, {}, {0, 0, 0, 0}
local keys = {}
for _, suffix in ipairs({'started:chain', 'started:swarm', 'items', unpack(ARGV, 2)}) do
  for _, shard in ipairs(KEYS) do keys[#keys + 1] = shard .. ':' .. suffix end
end
local present = present_of(keys, #KEYS)
for i = 2, #ARGV do
  local count = 0
  for j, shard in ipairs(KEYS) do
    local key = shard .. ':' .. ARGV[i]
    if present[key] then
      if string.sub(ARGV[1], j, j) == '1' then on_index('ZREMRANGEBYSCORE', key, '-inf', now) end
      count = count + on_index('ZCARD', key)
    end
  end
  signatures[i - 1] = count
end
-- A flow that expires before it ends leaves its entry behind. The oldest flows expire first.
local function forget_expired(shard, key, kind)
  local prefix = string.sub(shard, 1, -#'stats' - 1) .. kind .. ':'
  for _, identity in ipairs(on_index('ZRANGE', key, 0, 99)) do
    if redis.call('EXISTS', prefix .. identity) == 1 then return end
    redis.call('ZREM', key, identity)
    on_index('HDEL', shard .. ':items', identity)
  end
end

for i, kind in ipairs({'chain', 'swarm'}) do
  local count, oldest = 0, 0
  for _, shard in ipairs(KEYS) do
    local key = shard .. ':started:' .. kind
    local first = {}
    if present[key] then
      forget_expired(shard, key, kind)
      count = count + redis.call('ZCARD', key)
      first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    end
    local started_ms = tonumber(first[2])
    if started_ms and (started_ms < 1 or started_ms > tonumber(now) * 2) then
      redis.call('ZREM', key, first[1])
      note_damage(shard, key .. ' ' .. first[1], 'entry', 'its time is out of range; removed', false)
    elseif started_ms and (oldest == 0 or started_ms < oldest) then
      oldest = started_ms
    end
  end
  flows[i] = {count, oldest == 0 and 0 or tonumber(now) - oldest}
end
for _, shard in ipairs(KEYS) do
  local key = shard .. ':items'
  local flat = present[key] and on_index('HGETALL', key) or {}
  for i = 1, #flat, 2 do
    local counts = {string.match(flat[i + 1], '^(%-?%d+),(%-?%d+),(%-?%d+),(%-?%d+)$')}
    if #counts == 4 and #flat[i + 1] < 64 then
      for j = 1, 4 do items[j] = items[j] + math.max(0, tonumber(counts[j])) end
    else
      redis.call('HDEL', key, flat[i])
      note_damage(shard, key .. ' ' .. flat[i], 'entry', 'it holds no four counts; removed', false)
    end
  end
end
return {signatures, flows[1], flows[2], items}
