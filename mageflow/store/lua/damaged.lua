-- damaged: list what was put aside in one or more shards, or clear the notes.
--
-- KEYS
--   ...      zset   the reconciler's index of each shard; more than one only outside a Cluster
-- ARGS
--   clear    text   1: delete the notes, and let reconcilers visit the records again
-- RESULT   key or entry, note (JSON), key or entry, note, ...
-- TTL      the index of a shard: at least a week
-- ATOMIC   what is noted meanwhile is either listed or kept
-- INCLUDE  damage moving
refuse_while_moving(KEYS[1])  -- on a Cluster there is no other
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local found = {}
for _, index in ipairs(KEYS) do
  local notes = string.match(index, '^(.-})') .. ':damaged'
  local flat = on_index('HGETALL', notes)
  for i = 1, #flat, 2 do
    found[#found + 1], found[#found + 2] = flat[i], flat[i + 1]
    local is_readable, note = pcall(cjson.decode, flat[i + 1])
    if ARGV[1] == '1' and is_readable and type(note) == 'table' and note.kind == 'record' then
      if redis.call('EXISTS', flat[i]) == 1 then
        on_index('ZADD', index, now, flat[i])
        if redis.call('PTTL', index) < NOTES_TTL_S * 1000 then redis.call('EXPIRE', index, NOTES_TTL_S) end
      end
    end
  end
  if ARGV[1] == '1' then redis.call('DEL', notes) end
end
return found
