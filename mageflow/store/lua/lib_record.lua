-- Library of the record scripts: reading and writing one record, its status, its TTLs and its place in the indexes.
-- Expects KEYS and ARGV[1] as every record script declares them, and TRANSITIONS and ENDED from the lifecycle table.
local R, D, S, V, L, O, H, U, T = unpack(KEYS, 1, 9)
local CFG = cjson.decode(ARGV[1])
local CLOCK = redis.call('TIME')
local NOW = CLOCK[1] * 1000 + math.floor(CLOCK[2] / 1000)
local HISTORY = 32

local head = {}
local facts = {}  -- what a reply says beside what has to be sent
local sends = {}

local function read_head()
  local flat = redis.call('HGETALL', R)
  for i = 1, #flat, 2 do head[flat[i]] = flat[i + 1] end
  return #flat > 0
end

local function put(field, value)
  head[field] = tostring(value)
  redis.call('HSET', R, field, head[field])
end

local function number(field) return tonumber(head[field] or '0') end

local function integer(value) return string.format('%.0f', value) end

local function definition(path)
  local raw = redis.call('HGET', D, definition_path(path))
  if not raw then return nil end
  local kind, successes, errors, start = string.match(raw, '^(%a):(%d+):(%d+)|()')
  if not kind then return nil end
  return {kind = kind, successes = tonumber(successes), errors = tonumber(errors), json = string.sub(raw, start)}
end

local function state_of(path)
  local raw = redis.call('HGET', S, path)
  return raw and cjson.decode(raw) or nil
end

local function keep(path, state)
  state.t = NOW
  redis.call('HSET', S, path, cjson.encode(state))
end

local function census(status)
  local identity = string.match(R, '([^:]*)$')
  local ttl = ENDED[status] and CFG.done or CFG.active
  return T .. ':' .. (head.kind or '') .. ':' .. status, identity, integer(NOW + ttl * 1000)
end

-- Add to the history what happened at an unchanged status; what happens time and again is one entry.
local function note(topic, text)
  local history = cjson.decode(head.hist or '[]')
  local last = history[#history]
  local times = 1
  if last and string.sub(last.why, 1, #topic) == topic then
    times = (tonumber(string.match(last.why, ' %((%d+) times%)$')) or 1) + 1
    table.remove(history)
  end
  local why = topic .. ': ' .. text .. (times > 1 and ' (' .. times .. ' times)' or '')
  history[#history + 1] = {at = NOW, status = head.st, by = '', why = why}
  while #history > HISTORY do table.remove(history, 1) end
  put('hist', cjson.encode(history))
end

local function set_status(status, by, why)
  if head.st and head.st ~= status then
    local old, identity = census(head.st)
    redis.call('ZREM', old, identity)
  end
  if head.st ~= status then
    local history = cjson.decode(head.hist or '[]')
    history[#history + 1] = {at = NOW, status = status, by = by or '', why = why or ''}
    while #history > HISTORY do table.remove(history, 1) end
    put('hist', cjson.encode(history))
  end
  put('st', status)
end

-- Progress: every key lives on, and the reconciler comes back in time. Called last by every script that writes.
local function touch()
  local open = redis.call('HLEN', O) + redis.call('ZCARD', L)
  local waits = redis.call('HLEN', O) > 0
  local over = ENDED[head.st] and open == 0
  local ttl = over and CFG.done or CFG.active
  put('updated', integer(NOW))
  for i = 1, 7 do redis.call('EXPIRE', KEYS[i], ttl) end
  local counts, identity, expires = census(head.st)
  redis.call('ZADD', counts, expires, identity)
  redis.call('EXPIRE', counts, CFG.active * 2)
  if over or (open == 0 and (head.st == 'pending' or head.st == 'suspended')) then
    redis.call('ZREM', U, R)
  else
    redis.call('ZADD', U, 'LT', integer(NOW + (waits and CFG.grace or CFG.check)), R)
    redis.call('EXPIRE', U, CFG.active * 2)
  end
end

-- The number of members of a plain signature grows with every run by its user: the oldest ended ones are forgotten.
-- Looking costs as much as there are members, so it is done when they have become twice as many as were left.
local function forget_old_runs()
  if head.kind ~= 'task' or redis.call('HLEN', S) <= math.max(64, number('kept') * 2) then return end
  local ended, flat = {}, redis.call('HGETALL', S)
  for i = 1, #flat, 2 do
    local state = cjson.decode(flat[i + 1])
    if ENDED[state.st] then ended[#ended + 1] = {flat[i], state.t} end
  end
  table.sort(ended, function(a, b) return a[2] < b[2] end)
  for i = 1, #ended - 32 do
    redis.call('HDEL', S, ended[i][1])
    redis.call('HDEL', V, ended[i][1])
  end
  put('kept', redis.call('HLEN', S))
end

-- Note that entries of the outbox were sent: ARGV[first], … are path, epoch and run id, in turn. An entry that was
-- admitted meanwhile is gone already, and its admission knows better; a nested flow that was started while its parent
-- was interrupted is to be interrupted as well.
local function acknowledge(first)
  local count = 0
  for i = first, #ARGV, 3 do
    local path, epoch, run = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
    local raw = redis.call('HGET', O, path)
    if raw and cjson.decode(raw).ep == epoch then
      redis.call('HDEL', O, path)
      count = count + 1
      local state = state_of(path)
      if state and state.st == 'queued' and state.ep == epoch and run ~= '' then
        state.st, state.run = flow_of_run(run) and 'active' or 'sent', run
        keep(path, state)
        redis.call('ZADD', L, integer(NOW), path)
      end
    elseif flow_of_run(run) then
      local state = state_of(path)
      if state and state.st == 'interrupted' and state.ep == epoch and not state.run then
        state.run = run
        redis.call('HSET', S, path, cjson.encode(state))
        redis.call('HSET', O, action_on('interrupt', flow_of_run(run)), cjson.encode({k = 'action', ep = 0, t = NOW}))
      end
    end
  end
  return count
end
