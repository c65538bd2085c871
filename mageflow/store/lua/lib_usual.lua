-- Library of the first parts of admit and settle. These answer the usual case by themselves: a run that a user starts
-- from a plain signature. They write what the scripts behind them would write, and stand in front of the libraries of
-- those, because the functions of the libraries cost more to make than all of this.
--
-- Anything else falls through, unchanged, to the whole script; so does everything that is damaged. A first part reads
-- all that it needs before it writes, and ends without a write where a key of the record has another type, as the whole
-- script does. Its first writes are the input or the result, and those of the indexes, which the whole script may repeat.
-- Needs lib_history.

-- The header and the definition of a plain signature that is not scheduled; nil for every other record. Also nil when
-- the user of Redis may not write all that a run writes until it has ended: a server takes nothing back when it refuses
-- the third of five writes.
local function usual_read()
  local may, record, counts = redis.acl_check_cmd, KEYS[1], KEYS[9] .. ':task:active'
  if may and not (may('DEL', record, KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], counts)
    and may('HSET', record) and may('HDEL', record) and may('ZADD', record) and may('ZREM', record)
    and may('EXPIRE', record) and may('PTTL', record) and may('RPUSH', record) and may('LREM', record)) then
    return nil
  end
  local found = redis.call('HMGET', record, 'format', 'kind', 'total', 'starts_ms', 'kept_until_ms', 'traceparent',
    'status', 'name', 'history', 'started_ms', 'attempts', 'kept_members')
  if found[1] ~= FORMAT or found[2] ~= 'task' or found[3] or found[4] or found[5] or found[6] then return nil end
  local stored = redis.call('HGET', KEYS[2], '')
  local letter, successes, errors, start = string.match(stored or '', '^(%a):(%d%d?):(%d%d?)|()')
  if letter ~= 'T' then return nil end
  local header = {
    status = found[7], name = found[8] or '', history = found[9] or '[]', started_ms = found[10],
    attempts = found[11] or '0', kept_members = found[12] or '0',
  }
  local def = {
    json = string.sub(stored, start), success_callbacks = tonumber(successes), error_callbacks = tonumber(errors),
  }
  return header, def
end

-- Ends the script, before it writes anything, if the results or the live members are of another type. No run
-- is admitted whose end cannot be written.
local function usual_may_be_written()
  redis.call('HLEN', KEYS[4])
  redis.call('ZCARD', KEYS[5])
  return true
end

local function usual_now_ms()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

local function usual_is_user_run(path) return string.find(path, '^@[^.]*$') ~= nil end

local function usual_integer(value) return string.format('%.0f', value) end

-- A stored counter; nil if it is damaged.
local function usual_number(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) or nil end

-- The history with the change to this status; nil if it is damaged.
local function usual_history(before, status, now_ms)
  local change = '{"at_ms":' .. usual_integer(now_ms) .. ',"by":"","status":"' .. status .. '","why":""}'
  local is_good, history = pcall(history_with, before, change)
  return is_good and history or nil
end

-- Count the record under its status, and let a reconciler look at it after wait_ms, or no more. False if an index is
-- damaged: the whole script makes it anew.
local function usual_keep_indexes(before, status, now_ms, ttl_s, index_ttl_s, wait_ms)
  local counts, due, id = KEYS[9] .. ':task:' .. status, KEYS[8], string.match(KEYS[1], '([^:]*)$')
  local answer = redis.pcall('ZADD', counts, usual_integer(now_ms + ttl_s * 1000), id)
  if type(answer) ~= 'table' and before ~= status then
    answer = redis.pcall('ZREM', KEYS[9] .. ':task:' .. before, id)
  end
  if type(answer) ~= 'table' and wait_ms then
    answer = redis.pcall('ZADD', due, 'LT', usual_integer(now_ms + wait_ms), KEYS[1])
  elseif type(answer) ~= 'table' then
    answer = redis.pcall('ZREM', due, KEYS[1])
  end
  if type(answer) == 'table' then return false end
  if redis.call('PTTL', counts) < index_ttl_s * 1000 then redis.call('EXPIRE', counts, index_ttl_s) end
  if wait_ms and redis.call('PTTL', due) < index_ttl_s * 1000 then redis.call('EXPIRE', due, index_ttl_s) end
  return true
end

local function usual_expire(ttl_s)
  for i = 1, 7 do
    if i ~= 6 then redis.call('EXPIRE', KEYS[i], ttl_s) end  -- there is no outbox
  end
end

-- Where the time of the attempts of a member went. stages: JSON text of the last one. A damaged sum begins anew: it is
-- for people alone.
local function usual_add_stages(state, stages)
  if stages == '' then return end
  local sums = type(state.stages) == 'table' and state.stages or {}
  for stage, ms in pairs(cjson.decode(stages)) do sums[stage] = (tonumber(sums[stage]) or 0) + ms end
  state.stages = sums
end
