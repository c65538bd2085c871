-- search: the next part of the records of some shards, from the indexes of their kind and status.
--
-- KEYS
--   ...      text   what the keys of each shard's counts begin with; more than one only outside a Cluster
-- ARGS
--   shard    text   number of the shard to go on with, from 1
--   pair     text   number of its <kind>:<status> pair, from 1
--   score    text   the time of the index to go on at, epoch ms
--   offset   text   how many entries of that time were read before
--   limit    text   how many entries to read
--   name     text   only records of this name, or nothing for all
--   since    text   only records that were created at this time or later, epoch ms
--   ...      text   the <kind>:<status> pairs; with :<epoch ms> only entries from this time of the index on
-- RESULT   {{record key, kind, name, status, created ms, updated ms, attempts} of each match; the four numbers to go on
--          with, or nothing at the end}
-- TTL      none changes
-- ATOMIC   an entry of an index and its record belong together
-- INCLUDE  damage moving
local FIRST_PAIR = 8
refuse_while_moving(KEYS[1])  -- on a Cluster there is no other
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local shard, pair, score, offset = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local left, name, since = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local pairs_count, found = #ARGV - FIRST_PAIR + 1, {}

-- A record that is gone, of another type or without these fields is left out: other commands report it.
local function add_match(kind, key)
  local values = redis.pcall('HMGET', key, 'name', 'status', 'created_ms', 'updated_ms', 'attempts')
  if values.err or not (values[1] and values[2] and values[3] and values[4]) then return end
  if name ~= '' and values[1] ~= name then return end
  if (tonumber(values[3]) or 0) < since then return end
  found[#found + 1] = {key, kind, values[1], values[2], values[3], values[4], values[5] or '0'}
end

while shard <= #KEYS do
  local tag = string.match(KEYS[shard], '^(.-}):')
  while pair <= pairs_count do
    local kind, status, from = string.match(ARGV[FIRST_PAIR + pair - 1], '^(%l+):(%l+):?(%d*)$')
    local index = KEYS[shard] .. ':' .. kind .. ':' .. status
    -- What expired before is not looked at.
    if score == '' then score = (tonumber(from) or 0) > tonumber(now) and from or now end
    local rows = on_index('ZRANGEBYSCORE', index, score, '+inf', 'WITHSCORES', 'LIMIT', offset, left)
    for i = 1, #rows, 2 do
      add_match(kind, tag .. ':' .. kind .. ':' .. rows[i])
      if rows[i + 1] == score then offset = offset + 1 else score, offset = rows[i + 1], 1 end
      left = left - 1
    end
    if left <= 0 then return {found, {shard, pair, score, offset}} end
    pair, score, offset = pair + 1, '', 0
  end
  shard, pair = shard + 1, 1
end
return {found, {}}
