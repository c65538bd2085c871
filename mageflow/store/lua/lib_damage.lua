-- Library of the scripts over records and indexes: what cannot be read is noted and put aside, so that it stops nothing
-- else. The notes of a shard share its hash tag, so that the script that meets the damage writes them.
--
-- <prefix>:{<namespace>/<shard>}:damaged, a hash: key, or member of an index -> {kind, reason, at_ms, reported}. Kinds:
-- record, a record that no reconciler visits until the notes are cleared; index, an index of another type that was
-- deleted; entry, an entry of an index that names nothing and was removed. reported: a worker has reported it.
local MAX_NOTES, MAX_REBUILT, NOTES_TTL_S = 1000, 10000, 7 * 24 * 3600

local function error_text(failure) return type(failure) == 'table' and failure.err or tostring(failure) end

local function is_wrong_type(failure) return string.find(error_text(failure), 'WRONGTYPE', 1, true) ~= nil end

local noted = {}  -- the keys of notes that this call has written to

-- key: any key of the shard. True if the damage was not noted before. A full hash keeps no more, and then all is new.
local function note_damage(key, what, kind, reason, reported)
  local notes = string.match(key, '^(.-})') .. ':damaged'
  local count = redis.pcall('HLEN', notes)
  if type(count) == 'table' then
    redis.call('DEL', notes)
    count = 0
  end
  if redis.call('HEXISTS', notes, what) == 1 then return false end
  if count < MAX_NOTES then
    local clock = redis.call('TIME')
    local at_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
    redis.call('HSET', notes, what, cjson.encode({kind = kind, reason = reason, at_ms = at_ms, reported = reported}))
    redis.call('EXPIRE', notes, NOTES_TTL_S)
    noted[notes] = true
  end
  return true
end

-- Fill the index of due records anew from the counts, which list every record of the shard by kind and status.
local function rebuild_due(index)
  local tag = string.match(index, '^(.-})')
  local clock = redis.call('TIME')
  local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
  for _, kind in ipairs({'task', 'chain', 'swarm'}) do
    for _, status in ipairs({'active', 'suspended', 'done', 'failed', 'cancelled', 'interrupted'}) do
      local ids = redis.pcall('ZRANGE', tag .. ':stats:' .. kind .. ':' .. status, 0, MAX_REBUILT - 1)
      for _, id in ipairs(ids) do redis.call('ZADD', index, now, tag .. ':' .. kind .. ':' .. id) end
    end
  end
  redis.call('EXPIRE', index, NOTES_TTL_S)
end

-- A command over an index. An index of another type holds nothing of ours: it is deleted. That of due records is filled
-- anew, the others by later writes.
local function on_index(command, index, ...)
  local answer = redis.pcall(command, index, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if not is_wrong_type(answer) then error(answer) end
  -- Two keys: refused while the slot moves (lib_moving). The index would be filled from what has not left yet.
  redis.call('DEL', index, string.match(index, '^(.-})') .. ':none')
  if string.find(index, '}:due$') then rebuild_due(index) end
  note_damage(index, index, 'index', 'it had another type than an index; deleted and filled anew', false)
  return redis.call(command, index, ...)
end
