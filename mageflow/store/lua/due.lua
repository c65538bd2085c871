-- due: take records that a reconciler has to look at, and put each off so that no other reconciler takes it.
--
-- KEYS
--   ...      zset   indexes of shards; more than one only outside a Cluster
-- ARGS
--   limit    text   how many at most
--   lease_ms text   how long they are put off
-- RESULT   {keys of records, most overdue first; what was found damaged and not reported yet: key or
--          entry, note (JSON), in turn; ms until the next record is due, at most a day}
-- TTL      none changes
-- ATOMIC   two reconcilers must not take the same record
-- INCLUDE  damage present
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found, untold = {}, {}

-- What an entry of the index may look like: the key of a record of this shard.
local function is_record_key(index, entry)
  local tag = string.match(index, '^(.-}):')
  if string.sub(entry, 1, #tag + 1) ~= tag .. ':' then return false end
  local kind, id = string.match(string.sub(entry, #tag + 2), '^(%l+):([%w_.-]+)$')
  return (kind == 'task' or kind == 'chain' or kind == 'swarm') and string.sub(id, -1) == string.sub(tag, -2, -2)
end

local function notes_of(index) return string.match(index, '^(.-})') .. ':damaged' end

local function take_untold(notes)
  local flat = on_index('HGETALL', notes)
  for i = 1, #flat, 2 do
    local is_readable, note = pcall(cjson.decode, flat[i + 1])
    if is_readable and type(note) == 'table' and not note.reported then
      note.reported = true
      redis.call('HSET', notes, flat[i], cjson.encode(note))
      untold[#untold + 1], untold[#untold + 2] = flat[i], flat[i + 1]
    end
  end
end

local limit = tonumber(ARGV[1])
local keys = {unpack(KEYS)}
for _, index in ipairs(KEYS) do keys[#keys + 1] = notes_of(index) end
local present = present_of(keys)
local next_ms = 86400000
local overdue = {}
for _, index in ipairs(KEYS) do
  local first = present[index] and tonumber(on_index('ZRANGE', index, 0, 0, 'WITHSCORES')[2])
  if first and first > now then
    next_ms = math.min(next_ms, math.ceil(first - now))
  elseif first then
    local due = on_index('ZRANGEBYSCORE', index, '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, limit)
    for i = 1, #due, 2 do
      if is_record_key(index, due[i]) then
        overdue[#overdue + 1] = {index = index, record = due[i], at_ms = tonumber(due[i + 1])}
      else
        redis.call('ZREM', index, due[i])
        note_damage(index, due[i], 'entry', 'it is no key of a record of this shard; removed from ' .. index, false)
      end
    end
  end
end
-- Of all shards: with more due records than are taken, those of the last shards would never be.
table.sort(overdue, function(a, b) return a.at_ms < b.at_ms end)
for i = 1, math.min(limit, #overdue) do
  redis.call('ZADD', overdue[i].index, string.format('%.0f', now + tonumber(ARGV[2])), overdue[i].record)
  found[i] = overdue[i].record
end
for _, index in ipairs(KEYS) do
  local notes = notes_of(index)
  if present[notes] or noted[notes] then take_untold(notes) end
end
return {found, untold, next_ms}
