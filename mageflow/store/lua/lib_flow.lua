-- Library of the record scripts: what follows from what. Callbacks, the next step, the next items, the end of a flow,
-- and the outbox through which all of it is sent. Needs lib_paths and lib_record.

local GONE = {'gone', '{}', '', '', '', '', '', {}}  -- the envelope of a record that is not stored

local ending_link  -- traceparent of the run whose end this script concludes

-- Put an entry into the outbox, and into the reply of this script.
local function send(field, entry)
  entry.decided_ms = NOW_MS
  redis.call('HSET', OUTBOX, field, cjson.encode(entry))
  to_send[#to_send + 1] = field
end

-- Cancel a run in Hatchet; interrupt it if it is a nested flow.
local function send_stop(run_id)
  local flow = flow_of_run(run_id)
  if flow then
    send(action_on('interrupt', flow), {epoch = 0})
  elseif run_id then
    send(cancellation_of(run_id), {epoch = 0})
  end
end

-- Whether a user has suspended this callback of every run of a signature.
local function is_suspended_for_all_runs(path)
  local shared = definition_path(path)
  if shared == path or shared == '' then return false end
  local state = state_of(shared)
  return state ~= nil and state.suspended == true
end

-- Dispatch a member: it is sent now, or held. Each dispatch has another epoch, so that a second legitimate dispatch of
-- a member differs from the same one sent twice. remembered: what the new state has from the start: handed_ms, and of
-- what is sent again the sums of the dispatches before. wait_ms: time until a reconciler sends it, instead of now. False
-- when there is no such member. A hand-over that was interrupted by a suspension begins anew at resume.
local function dispatch(path, link, remembered, wait_ms)
  local def = definition(path)
  if not def then return false end
  local before = state_of(path)
  local state = remembered or {}
  state.status, state.epoch, state.link, state.attempt_number = 'queued', before and before.epoch + 1 or 0, link, 0
  state.options, state.decided_ms = before and before.options, NOW_MS
  if before and before.handed_ms and not state.handed_ms then state.handed_ms = NOW_MS end
  local entry = {kind = def.is_task and 'run' or 'flow', epoch = state.epoch}
  if before and before.suspended or is_suspended_for_all_runs(path) then
    state.status, state.suspended = 'held', true
    hold('member', path)
  elseif state.resends and header.status == 'suspended' then
    state.status = 'held'
    hold('start', path)
  elseif wait_ms then
    entry.decided_ms, entry.claimed_until_ms = NOW_MS, NOW_MS + wait_ms
    redis.call('HSET', OUTBOX, path, cjson.encode(entry))
  else
    send(path, entry)
  end
  save_state(path, state)
  return true
end

-- The error of a member whose definition was lost or damaged in Redis.
local function missing_definition(path)
  local text = 'there is no definition of ' .. RECORD .. '#' .. path
  return cjson.encode({type = 'SignatureInvalidError', message = text, outcome = 'failed', at = NOW_MS})
end

-- Dispatch the callbacks of a member, or of the flow. Each runs at most once: a callback with an epoch was dispatched
-- before.
local function dispatch_callbacks(path, succeeded, def, link)
  for i = 0, (succeeded and def.success_callbacks or def.error_callbacks) - 1 do
    local callback = callback_path(path, succeeded, i)
    local before = state_of(callback)
    if not before or before.epoch < 0 then dispatch(callback, link, {handed_ms = NOW_MS}) end
  end
end

-- The last step's result, or the list of the items' results with null where an item failed, as JSON text.
local function flow_result()
  local total = number('total')
  if header.kind == 'chain' then return redis.call('HGET', RESULTS, integer(total - 1)) or 'null' end
  local parts = {}
  for first = 0, total - 1, 1000 do
    local fields = {}
    for i = first, math.min(first + 999, total - 1) do fields[#fields + 1] = integer(i) end
    for _, value in ipairs(redis.call('HMGET', RESULTS, unpack(fields))) do parts[#parts + 1] = value or 'null' end
  end
  return '[' .. table.concat(parts, ',') .. ']'
end

local function update_item_counts()
  if header.kind ~= 'swarm' then return end
  if ENDED[header.status] then return on_index('HDEL', ITEM_COUNTS, IDENTITY) end
  local pending = number('total') - number('next_item')
  on_index('HSET', ITEM_COUNTS, IDENTITY,
    table.concat({pending, number('running'), number('succeeded'), number('failed')}, ','))
  keep_index(ITEM_COUNTS, 0)
end

local function set_started(started_ms)
  on_index('ZADD', STARTED_FLOWS .. header.kind, started_ms, IDENTITY)
  keep_index(STARTED_FLOWS .. header.kind, 0)
end

-- Keep the input that failed last, for the error callbacks of this flow, or of the flow it is nested in.
local function keep_failed_input(input)
  local root = definition('')
  local is_read = header.parent or root and root.error_callbacks > 0
  if is_read and input ~= '' then put('failed_input', input) else clear('failed_input') end
end

-- The flow ends: dispatch its callbacks and report to its parent.
local function close_flow(transition, err, by, why)
  local status = TRANSITIONS[header.status][transition]
  if not status then return end
  set_status(status, by, why)
  put('ended_ms', integer(NOW_MS))
  if err then put('error', err) end
  if transition ~= 'fail' and transition ~= 'cancel' then clear('failed_input') end
  local root = definition('')
  if root and has_started() then dispatch_callbacks('', transition == 'succeed', root, ending_link) end
  if header.parent then send(PARENT_REPORT, {epoch = 0}) end
  on_index('ZREM', STARTED_FLOWS .. header.kind, IDENTITY)
  facts.closed = {
    status = status, kind = header.kind, started_ms = number('started_ms'), ended_ms = NOW_MS, steps = number('total'),
  }
  update_item_counts()
end

local function stop_member(path, state, status, err)
  if owner_of(path) then return end
  redis.call('HDEL', OUTBOX, path)
  redis.call('ZREM', LIVE, path)
  send_stop(state.run_id)
  state.status, state.error = status, err
  save_state(path, state)
  local def = definition(path)
  if def then dispatch_callbacks(path, false, def, state.traceparent) end
end

-- Stop the members that were started and have not ended. Callbacks go on: those that a suspension holds back, and those
-- of members that ended during it, are dispatched now.
local function stop_members(status, err)
  for _, path in ipairs(redis.call('ZRANGE', LIVE, 0, -1)) do
    local state = state_of(path)
    if state then stop_member(path, state, status, err) end
  end
  for _, path in ipairs(redis.call('HKEYS', OUTBOX)) do
    local state = state_of(path)
    if state and state.status == 'queued' then stop_member(path, state, status, err) end
  end
  local waiting = redis.call('LRANGE', HELD, 0, -1)
  redis.call('DEL', HELD)
  for _, entry in ipairs(waiting) do
    local what, path = read_held(entry)
    local state, def = state_of(path), definition(path)
    if state and def and what == 'ended' then
      dispatch_callbacks(path, state.status == 'done', def, state.traceparent)
    elseif state and state.status == 'held' and owner_of(path) then
      if state.suspended then redis.call('RPUSH', HELD, entry) else dispatch(path, state.link) end
    elseif state and state.status == 'held' then
      stop_member(path, state, status, err)
    end
  end
end

-- When each free place of a swarm that waits became free, in that order.
local function freed_places()
  local freed = {}
  for after in string.gmatch(header.freed_after_ms or '', '%d+') do freed[#freed + 1] = number('freed_ms') + after end
  return freed
end

-- Remember that so many places are free, of which the last became free now. Of more than 1000 the rest is not remembered.
local function note_freed_places(count)
  if not header.freed_ms then
    put('freed_ms', integer(NOW_MS))
    facts.refill_after_ms = number('refill_linger_ms')
  end
  local freed = freed_places()
  if #freed >= math.min(count, 1000) then return end
  local texts = {header.freed_after_ms}
  for _ = #freed + 1, math.min(count, 1000) do texts[#texts + 1] = integer(NOW_MS - number('freed_ms')) end
  put('freed_after_ms', table.concat(texts, ','))
end

local function forget_freed_places()
  clear('freed_ms')
  clear('freed_after_ms')
end

-- Dispatch items of a swarm while places are free. Free places wait for more, so that one call to Hatchet starts many.
-- first_new: the item from which on they were added by the caller: no place waited for these. new_handed_ms: what they
-- have as handed_ms, if anything.
local function fill_places(at_once, first_new, new_handed_ms)
  if header.kind ~= 'swarm' or header.status ~= 'active' then return end
  local pending, free = number('total') - number('next_item'), number('max_running') - number('running')
  local count = math.min(pending, free)
  if count <= 0 then
    if pending == 0 then forget_freed_places() end
    return
  end
  local waited = header.freed_ms and NOW_MS - number('freed_ms') >= number('refill_linger_ms')
  if not at_once and not waited and count < math.min(number('refill_batch'), pending) then
    note_freed_places(count)
    return
  end
  local first, missing, freed = number('next_item'), 0, freed_places()
  for i = first, first + count - 1 do
    local is_new = first_new and i >= first_new
    local handed_ms = new_handed_ms
    if not is_new then handed_ms = freed[i - first + 1] or NOW_MS end
    if not dispatch(integer(i), not is_new and ending_link or nil, {handed_ms = handed_ms}) then
      missing = missing + 1
      put('error', missing_definition(integer(i)))
    end
  end
  put('next_item', integer(first + count))
  put('running', integer(number('running') + count - missing))
  if missing > 0 then put('failed', integer(number('failed') + missing)) end
  forget_freed_places()
  facts.filled = {count = count, running = number('running'), pending = number('total') - number('next_item')}
end

-- End a swarm that accepts no more items and has none left: failed only if items failed and none succeeded.
local function finish_swarm()
  if header.kind ~= 'swarm' or header.status ~= 'active' then return end
  if header.closed ~= '1' or number('next_item') < number('total') or number('running') > 0 then return end
  if redis.call('LLEN', HELD) > 0 then return end
  if number('failed') > 0 and number('succeeded') == 0 then
    close_flow('fail', header.error)
  else
    close_flow('succeed')
  end
end

local function refill()
  fill_places(false)
  finish_swarm()
  update_item_counts()
end

-- Count the end of a member in its flow, also while the flow is suspended. by: 1, or -1 to take it back.
local function count_end(path, state, by)
  if owner_of(path) or not is_flow() or ENDED[header.status] then return end
  if header.kind == 'chain' then
    if state.status == 'done' and tonumber(path) == number('step') then put('step', integer(number('step') + by)) end
    return
  end
  local field = state.status == 'done' and 'succeeded' or 'failed'
  put('running', integer(number('running') - by))
  put(field, integer(number(field) + by))
  if field == 'failed' and by > 0 and state.error then put('error', state.error) end
  update_item_counts()
end

-- Whether a run that a user started from this signature is live.
local function has_live_runs()
  local first = 0
  repeat
    local paths = redis.call('ZRANGE', LIVE, first, first + 31)
    for _, path in ipairs(paths) do
      if is_user_run_path(path) then return true end
    end
    first = first + 32
  until #paths < 32
  return false
end

-- Start what follows from the end of a member that was counted. Never called while the record is suspended.
local function conclude(path, state, def)
  local succeeded = state.status == 'done'
  dispatch_callbacks(path, succeeded, def, state.traceparent)
  if owner_of(path) then
    if not succeeded then facts.failed_callback = path end
    return
  end
  ending_link = state.traceparent or ending_link
  local failure = (state.status == 'cancelled' or state.status == 'interrupted') and 'cancel' or 'fail'
  if header.kind == 'task' then
    if has_live_runs() then return end
    local status = TRANSITIONS[header.status][succeeded and 'succeed' or failure]
    if status then
      set_status(status)
      put('ended_ms', integer(NOW_MS))
    end
    return
  end
  if header.status ~= 'active' then return end
  if header.kind == 'chain' then
    local step = number('step')
    if tonumber(path) ~= (succeeded and step - 1 or step) then return end
    if not succeeded then return close_flow(failure, state.error) end
    if step >= number('total') then return close_flow('succeed') end
    local handed = {handed_ms = NOW_MS}
    if not dispatch(header.step, state.traceparent, handed) then close_flow('fail', missing_definition(header.step)) end
    return
  end
  local most_failures = number('stop_after_failures')
  if not succeeded and most_failures > 0 and number('failed') >= most_failures then
    stop_members('interrupted', state.error)
    return close_flow('fail', header.error or state.error)
  end
  refill()
end

-- Dispatch the first step, or the first items, of a flow that has its message. handed_ms: when what came before it in its
-- parent ended, if anything did.
local function begin_flow(handed_ms)
  set_status('active', header.started_by, '')
  if header.kind ~= 'chain' then
    fill_places(true, 0, handed_ms)
    finish_swarm()
    update_item_counts()
  elseif not dispatch('0', '', {handed_ms = handed_ms}) then
    close_flow('fail', missing_definition('0'))
  end
end

-- What the runs of a member are given: the options of the flow, or of the user's run that a callback belongs to.
local function options_of(path)
  if is_flow() then return header.options or '' end
  local owner = owner_of(path)
  while owner do path, owner = owner, owner_of(owner) end
  local state = state_of(path)
  return state and state.options or ''
end

-- One row of the reply for one entry of the outbox: {field, kind, epoch, definition, role, value, input, link, tries,
-- options, failed input of the flow, handed_ms or nothing}.
-- It holds all that the sender builds the input from; user data passes through as text and is not parsed here.
local function outbox_row(field)
  local raw = redis.call('HGET', OUTBOX, field)
  if not raw then return nil end
  local entry = cjson.decode(raw)
  local epoch, tries = integer(entry.epoch), integer(entry.tries or 0)
  if field == PARENT_REPORT then
    local value = header.status == 'done' and flow_result() or header.error or ''
    return {field, '', epoch, '', header.status, value, header.parent, ending_link or '', tries, '',
      header.failed_input or '', ''}
  end
  if not is_member(field) then return {field, '', epoch, '', '', '', '', '', tries, '', '', ''} end
  local def, state, owner = definition(field), state_of(field) or {}, owner_of(field)
  local json, link = def and def.json or '', state.link or ''
  local role, value, input, failed_input = header.kind == 'chain' and 'step' or 'item', '', '', ''
  if owner and is_success_callback(field) then
    role = 'success'
    value = owner == '' and flow_result() or redis.call('HGET', RESULTS, owner) or 'null'
  elseif owner then
    local failed = owner == '' and {error = header.error, failed_input = header.message} or state_of(owner) or {}
    role, value, input = 'error', failed.error or '', failed.failed_input or ''
    if owner == '' then failed_input = header.failed_input or '' end
  elseif header.kind == 'task' then
    role, input = 'rerun', redis.call('HGET', RESULTS, input_of(field)) or ''
  elseif header.kind == 'chain' and tonumber(field) > 0 then
    value = redis.call('HGET', RESULTS, integer(tonumber(field) - 1)) or 'null'
  end
  local handed_ms = type(state.handed_ms) == 'number' and integer(state.handed_ms) or ''
  return {field, entry.kind, epoch, json, role, value, input, link, tries, options_of(field), failed_input, handed_ms}
end

-- The envelope: {verdict, facts, root definition, message, its set part, parent value, traceparent, outbox rows}.
-- The facts are a JSON object; any of them may be missing:
--   status           the record's, or the member's (start, lifecycle)
--   steps            how many steps or items there are (start)
--   members          the same, when something is to be sent
--   first_item       number of the first new item (swarm)
--   copies           JSON of the field copies (lifecycle)
--   limit            how many items a swarm may hold (swarm)
--   closed           {kind, status, started_ms, ended_ms, steps}: this script ended the flow
--   filled           {count, running, pending}: this script filled places of the swarm
--   refill_after_ms  free places are to be filled after this time
--   failed_callback  path of a callback that failed for good
--   resent           {path, reason, run_id, times}: this script sends the member again
--   is_due           a flow that is scheduled is to be started (inspect)
--   silent           {path, run id, attempt number, error, ms of silence, whether it is of a workflow} of each run to look
--                    up in Hatchet (inspect)
local function reply(verdict)
  local rows, root, message, message_set, parent_value = {}, '', '', '', ''
  for _, field in ipairs(to_send) do rows[#rows + 1] = outbox_row(field) end
  if #rows > 0 or facts.closed or facts.filled then
    local def = definition('')
    root = def and def.json or ''
  end
  if #rows > 0 then
    message, message_set, parent_value = header.message or '', header.message_set or '', header.parent_value or ''
    facts.members = number('total')
  end
  return {verdict, cjson.encode(facts), root, message, message_set, parent_value, header.traceparent or '', rows}
end
