-- Library of the record scripts: what follows from what. Callbacks, the next step, the next items, the end of a flow,
-- and the outbox through which all of it leaves. Needs lib_record.
local function post(path, entry)
  entry.t = NOW
  redis.call('HSET', O, path, cjson.encode(entry))
  sends[#sends + 1] = path
end

-- Decide that a member is to be started. The epoch makes a second, legitimate dispatch of the same member another one.
-- What is remembered of the dispatches before is handed on by whoever starts it again; wait: milliseconds until it is
-- sent. False when there is no such member.
local function enqueue(path, link, remembered, wait)
  local def = definition(path)
  if not def then return false end
  local before = state_of(path)
  local state = remembered or {}
  state.st, state.ep, state.lk, state.at = 'queued', before and before.ep + 1 or 0, link, 0
  local entry = {k = def.kind == 'T' and 'run' or 'flow', ep = state.ep}
  if before and before.sus then
    state.st, state.sus = 'held', true
    redis.call('RPUSH', H, held_as('member', path))
  elseif remembered and head.st == 'suspended' then
    state.st = 'held'
    redis.call('RPUSH', H, held_as('start', path))
  elseif wait then
    entry.t, entry.c = NOW, NOW + wait
    redis.call('HSET', O, path, cjson.encode(entry))
  else
    post(path, entry)
  end
  keep(path, state)
  return true
end

-- The error of a member that should be there and is not: its definition was lost or damaged in Redis.
local function broken(path)
  local text = 'there is no definition of ' .. R .. '#' .. path
  return cjson.encode({type = 'SignatureInvalidError', message = text, outcome = 'failed', at = NOW})
end

-- Callbacks of one node, each at most once for good: an epoch says that it was decided before.
local function fire(path, succeeded, def, link)
  for i = 0, (succeeded and def.successes or def.errors) - 1 do
    local child = callback_path(path, succeeded, i)
    local before = state_of(child)
    if not before or before.ep < 0 then enqueue(child, link) end
  end
end

local function flow_result()
  if head.kind == 'chain' then return redis.call('HGET', V, integer(number('total') - 1)) or 'null' end
  local parts, total = {}, number('total')
  for first = 0, total - 1, 1000 do
    local fields = {}
    for i = first, math.min(first + 999, total - 1) do fields[#fields + 1] = integer(i) end
    for _, value in ipairs(redis.call('HMGET', V, unpack(fields))) do parts[#parts + 1] = value or 'null' end
  end
  return '[' .. table.concat(parts, ',') .. ']'
end

local function items_changed()
  if head.kind ~= 'swarm' then return end
  local identity = string.match(R, '([^:]*)$')
  local key = T .. ':items'
  if ENDED[head.st] then return redis.call('HDEL', key, identity) end
  local pending = number('total') - number('next')
  redis.call('HSET', key, identity,
    table.concat({pending, number('running'), number('ok'), number('bad')}, ','))
  redis.call('EXPIRE', key, CFG.active * 2)
end

-- The flow is over: its callbacks, its parent, its place among the active.
local function close(verb, err, by, why)
  local status = TRANSITIONS[head.st][verb]
  if not status then return end
  set_status(status, by, why)
  put('ended', integer(NOW))
  if err then put('err', err) end
  local root = definition('')
  if root and (head.started or '') ~= '' then fire('', verb == 'succeed', root, head.link) end
  if (head.parent or '') ~= '' then post(PARENT_REPORT, {k = 'report', ep = 0}) end
  redis.call('ZREM', T .. ':started:' .. head.kind, string.match(R, '([^:]*)$'))
  facts.closed = {
    status = status, kind = head.kind, started_at = number('started'), ended_at = NOW, steps = number('total')
  }
  items_changed()
end

-- Stop what was started and has not ended. Callbacks are not stopped: those that a suspension holds back, and those of
-- members that ended during it, go now, as they would have gone without it.
local function stop_members(status, err)
  local function stop(path, state)
    if owner_of(path) then return end
    redis.call('HDEL', O, path)
    redis.call('ZREM', L, path)
    if flow_of_run(state.run) then
      post(action_on('interrupt', flow_of_run(state.run)), {k = 'action', ep = 0})
    elseif state.run then
      post(cancellation_of(state.run), {k = 'cancel', ep = 0})
    end
    state.st, state.er = status, err
    keep(path, state)
    local def = definition(path)
    if def then fire(path, false, def, state.tp) end
  end
  for _, path in ipairs(redis.call('ZRANGE', L, 0, -1)) do
    local state = state_of(path)
    if state then stop(path, state) end
  end
  for _, path in ipairs(redis.call('HKEYS', O)) do
    local state = state_of(path)
    if state and state.st == 'queued' then stop(path, state) end
  end
  local waiting = redis.call('LRANGE', H, 0, -1)
  redis.call('DEL', H)
  for _, held in ipairs(waiting) do
    local what, path = read_held(held)
    local state, def = state_of(path), definition(path)
    if state and def and what == 'ended' then
      fire(path, state.st == 'done', def, state.tp)
    elseif state and state.st == 'held' and owner_of(path) then
      if state.sus then redis.call('RPUSH', H, held) else enqueue(path, state.lk) end
    elseif state and state.st == 'held' then
      stop(path, state)
    end
  end
end

-- Start items of a swarm while there are places. Freed places are collected, so that one call starts many.
local function fill(at_once)
  if head.kind ~= 'swarm' or head.st ~= 'active' then return end
  local pending, free = number('total') - number('next'), number('max') - number('running')
  local count = math.min(pending, free)
  if count <= 0 then
    if pending == 0 and head.freed then redis.call('HDEL', R, 'freed'); head.freed = nil end
    return
  end
  local is_late = head.freed and NOW - number('freed') >= number('linger')
  if not at_once and not is_late and count < math.min(number('batch'), pending) then
    if not head.freed then
      put('freed', integer(NOW))
      facts.refill_after_ms = number('linger')
    end
    return
  end
  local first, missing = number('next'), 0
  for i = first, first + count - 1 do
    if not enqueue(integer(i)) then
      missing = missing + 1
      put('err', broken(integer(i)))
    end
  end
  put('next', integer(first + count))
  put('running', integer(number('running') + count - missing))
  if missing > 0 then put('bad', integer(number('bad') + missing)) end
  if head.freed then redis.call('HDEL', R, 'freed'); head.freed = nil end
  facts.filled = {count = count, running = number('running'), pending = number('total') - number('next')}
end

-- A swarm that takes no more tasks and has none left is over: as failed only if items failed and none succeeded.
local function finish_swarm()
  if head.kind ~= 'swarm' or head.st ~= 'active' then return end
  if head.closed ~= '1' or number('next') < number('total') or number('running') > 0 then return end
  if redis.call('LLEN', H) > 0 then return end
  if number('bad') > 0 and number('ok') == 0 then close('fail', head.err) else close('succeed') end
end

-- What the end of a member changes in the numbers of its flow; at once, also while what follows from it has to wait.
local function count(path, state, by)
  if owner_of(path) or head.kind == 'task' or ENDED[head.st] then return end
  if head.kind == 'chain' then
    if state.st == 'done' and tonumber(path) == number('step') then
      put('step', integer(number('step') + by))
    end
    return
  end
  local how = state.st == 'done' and 'ok' or 'bad'
  put('running', integer(number('running') - by))
  put(how, integer(number(how) + by))
  if how == 'bad' and by > 0 and state.er then put('err', state.er) end
  items_changed()
end

-- What follows from the end of a member that was counted. Never called while the record is suspended.
local function conclude(path, state, def)
  local succeeded = state.st == 'done'
  fire(path, succeeded, def, state.tp)
  if owner_of(path) then
    if not succeeded then facts.failed_callback = path end
    return
  end
  if state.tp then head.link = state.tp end
  local how = (state.st == 'cancelled' or state.st == 'interrupted') and 'cancel' or 'fail'
  if head.kind == 'task' then
    local first = 0
    repeat
      local others = redis.call('ZRANGE', L, first, first + 31)
      for _, live in ipairs(others) do
        if is_user_run_path(live) then return end
      end
      first = first + 32
    until #others < 32
    local verb = succeeded and 'succeed' or how
    local status = TRANSITIONS[head.st][verb]
    if status then set_status(status); put('ended', integer(NOW)) end
    return
  end
  if head.st ~= 'active' then return end
  if head.kind == 'chain' then
    local step = number('step')
    if tonumber(path) ~= (succeeded and step - 1 or step) then return end
    if not succeeded then return close(how, state.er) end
    if step >= number('total') then return close('succeed') end
    if not enqueue(head.step, state.tp) then close('fail', broken(head.step)) end
    return
  end
  if not succeeded and number('stop') > 0 and number('bad') >= number('stop') then
    stop_members('interrupted', state.er)
    return close('fail', state.er)
  end
  fill(false)
  finish_swarm()
  items_changed()
end

-- A flow that was given its message begins.
local function begin()
  set_status('active', head.by, '')
  if head.kind ~= 'chain' then fill(true); finish_swarm(); items_changed()
  elseif not enqueue('0', '') then close('fail', broken('0')) end
end

-- Everything a sender needs to build the input of one member, without a byte of user data being parsed here:
-- {path, kind, epoch, definition, role, value, extra, link, how often it was tried}.
local function material(path)
  local raw = redis.call('HGET', O, path)
  if not raw then return nil end
  local entry = cjson.decode(raw)
  local tries = integer(entry.n or 0)
  if path == PARENT_REPORT then
    local value = head.st == 'done' and flow_result() or head.err or ''
    return {path, entry.k, integer(entry.ep), '', head.st, value, head.parent, head.link or '', tries}
  end
  if not is_member(path) then return {path, entry.k, integer(entry.ep), '', '', '', '', '', tries} end
  local def, state = definition(path), state_of(path) or {}
  local json, epoch, link = def and def.json or '', integer(entry.ep), state.lk or ''
  local owner = owner_of(path)
  if owner then
    if is_success_callback(path) then
      local value = redis.call('HGET', V, owner)
      if owner == '' then value = flow_result() end
      return {path, entry.k, epoch, json, 'success', value or 'null', '', link, tries}
    end
    local failed = state_of(owner) or {}
    if owner == '' then failed = {er = head.err, im = head.msg} end
    return {path, entry.k, epoch, json, 'error', failed.er or '', failed.im or '', link, tries}
  end
  if head.kind == 'task' then
    return {path, entry.k, epoch, json, 'rerun', '', redis.call('HGET', V, input_of(path)) or '', link, tries}
  end
  local index = tonumber(path)
  if head.kind == 'chain' and index > 0 then
    return {path, entry.k, epoch, json, 'step', redis.call('HGET', V, integer(index - 1)) or 'null', '', link, tries}
  end
  return {path, entry.k, epoch, json, head.kind == 'chain' and 'step' or 'item', '', '', link, tries}
end

-- {verdict, facts, root definition, message, value of the parent, traceparent, sends}. The facts are a JSON object; any
-- of them may be missing:
--   status           the record's, or the member's (start, lifecycle)
--   steps            how many steps or items there are (start)
--   members          the same, when something is to be sent
--   first_item       number of the first new item (swarm)
--   limit            how many items a swarm may hold (swarm)
--   closed           {kind, status, started_at, ended_at, steps}: this script ended the flow
--   filled           {count, running, pending}: this script filled places of the swarm
--   refill_after_ms  free places are to be filled after this time
--   failed_callback  path of a callback that failed for good
--   resent           {path, reason, run, times}: this script sends the member again
--   silent           {path, run, attempt, error, milliseconds of silence} of each run to ask Hatchet about (inspect)
local function reply(verdict)
  local out, root = {}, ''
  for _, path in ipairs(sends) do
    local one = material(path)
    if one then out[#out + 1] = one end
  end
  if #out > 0 or facts.closed or facts.filled then
    local def = definition('')
    root = def and def.json or ''
  end
  local message, parent_value = '', ''
  if #out > 0 then
    message, parent_value = head.msg or '', head.carry or ''
    facts.members = number('total')
  end
  return {verdict, cjson.encode(facts), root, message, parent_value, head.trace or '', out}
end
