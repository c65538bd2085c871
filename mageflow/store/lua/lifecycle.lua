-- lifecycle: suspend, resume or interrupt a record or one member of it.
--
-- KEYS
--   record       hash   the header of the record
--   definitions  hash   definitions of its members
--   members      hash   states of its members
--   results      hash   results of its members
--   live         zset   members that were sent or run
--   outbox       hash   what is not known to be sent
--   held         list   what waits for resume
--   due          zset   the reconciler's index of the shard
--   stats        text   what the keys of the shard's counts begin with
-- ARGS
--   config   json   TTLs and intervals
--   path     text   the member, or nothing for the record itself
--   action   text   suspend, resume or interrupt
--   by       text   who
--   why      text   why
--   error    text   JSON of the error an interrupt leaves
--   scope    text   own: this record alone; look: change nothing, say what would be; or nothing
-- RESULT   the envelope of lib_flow; verdict applied, illegal, gone, or copied (a signature that was copied; nothing was
--          changed, facts.copies says where to); facts.status is the status after it, or the one that forbids it;
--          facts.is_scheduled: the record was interrupted, and a start lies ahead that is scheduled
-- TTL      every key of the record: refreshed
-- ATOMIC   a step that ends at the same moment must see the flow either suspended or not, and be sent once
-- INCLUDE  history paths damage record flow
local path, action, by, why, err, scope = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
if not read_header() then return GONE end

local function refuse(status)
  facts.status = status
  return reply('illegal')
end

local function finish(status)
  refresh()
  facts.status = status
  return reply('applied')
end

-- Apply the action to the nested flows that run. It replaces an action that was not sent yet.
local function send_to_nested_flows()
  put('actions_sent', integer(number('actions_sent') + 1))
  for _, member in ipairs(redis.call('ZRANGE', LIVE, 0, -1)) do
    local state = state_of(member)
    local flow = state and flow_of_run(state.run_id)
    if flow then
      redis.call('HDEL', OUTBOX, action_on('suspend', flow), action_on('resume', flow))
      send(action_on(action, flow), {epoch = number('actions_sent')})
    end
  end
end

-- A member that is a nested flow and runs: the flow itself is suspended or resumed.
local function send_to_nested_flow(state)
  local flow = state.status == 'active' and flow_of_run(state.run_id)
  if not flow then return end
  put('actions_sent', integer(number('actions_sent') + 1))
  redis.call('HDEL', OUTBOX, action_on('suspend', flow), action_on('resume', flow))
  send(action_on(action, flow), {epoch = number('actions_sent')})
end

local function suspend_member(state)
  state.suspended = true
  save_state(path, state)
  send_to_nested_flow(state)
  return finish('suspended')
end

local function release(member, state)
  local waits = state.suspended and state.status == 'held'
  state.suspended = nil
  save_state(member, state)
  if waits then
    unhold('member', member)
    if header.status == 'suspended' then hold('start', member) else dispatch(member, state.link) end
  end
end

-- path: a callback of a signature without a run. It stands for this callback of every run.
local function release_in_all_runs()
  for _, entry in ipairs(redis.call('LRANGE', HELD, 0, -1)) do
    local what, member = read_held(entry)
    local state = what == 'member' and member ~= path and definition_path(member) == path and state_of(member)
    if state then release(member, state) end
  end
end

local function resume_member(state)
  release(path, state)
  release_in_all_runs()
  send_to_nested_flow(state)
  return finish(state.status == 'active' and 'active' or 'pending')
end

local function interrupt_member(state, def)
  if state.epoch < 0 then return refuse('pending') end
  redis.call('HDEL', OUTBOX, path)
  redis.call('ZREM', LIVE, path)
  unhold('member', path)
  unhold('start', path)
  send_stop(state.run_id)
  state.status, state.error = 'interrupted', err
  if is_flow() and not owner_of(path) then clear('failed_input') end
  save_state(path, state)
  count_end(path, state, 1)
  if header.status == 'suspended' then hold('ended', path) else conclude(path, state, def) end
  return finish('interrupted')
end

local function suspend_record()
  put('suspended_from', header.status)
  set_status('suspended', by, why)
  forget_freed_places()
  for _, field in ipairs(redis.call('HKEYS', OUTBOX)) do
    local state = state_of(field)
    if state and state.status == 'queued' then
      redis.call('HDEL', OUTBOX, field)
      state.status = 'held'
      save_state(field, state)
      hold('start', field)
    end
  end
  send_to_nested_flows()
end

local function resume_record()
  local waiting = redis.call('LRANGE', HELD, 0, -1)
  redis.call('DEL', HELD)
  if header.suspended_from == 'pending' and has_started() and is_flow() then
    set_status('active', by, why)
    begin_flow()
  else
    set_status(header.suspended_from, by, why)
  end
  for _, entry in ipairs(waiting) do
    local what, member = read_held(entry)
    local state, def = state_of(member), definition(member)
    if what == 'member' then
      redis.call('RPUSH', HELD, entry)
    elseif state and def and what == 'start' and state.status == 'held' then
      dispatch(member, state.link)
    elseif state and def and what == 'ended' then
      conclude(member, state, def)
    end
  end
  fill_places(true)
  finish_swarm()
  update_item_counts()
  send_to_nested_flows()
end

local function interrupt_record()
  stop_members('interrupted', err)
  if is_flow() then return close_flow('interrupt', err, by, why) end
  set_status('interrupted', by, why)
  put('ended_ms', integer(NOW_MS))
  put('error', err)
end

-- The status for which a member that was not reached never will be; nil if it may be.
local function forbidden_by()
  local child, owner = path, owner_of(path)
  while owner and owner ~= '' do
    local state = state_of(owner)
    if state and ENDED[state.status] and (state.status == 'done') ~= is_success_callback(child) then
      return state.status
    end
    if state and state.epoch >= 0 then return nil end
    child, owner = owner, owner_of(owner)
  end
  if ENDED[header.status] and (is_flow() or not TRANSITIONS[header.status].start) then return header.status end
end

local function look()
  facts.status = header.status
  return reply('applied')
end

if header.copies and scope ~= 'own' and definition_path(path) == path then
  if path ~= '' and not definition(path) then return GONE end
  facts.status, facts.copies = header.status, header.copies
  return reply('copied')
end
if path ~= '' then
  local def = definition(path)
  if not def then return GONE end
  -- A member that was not reached yet has the epoch -1: it is held when it is reached.
  local state = state_of(path) or {status = 'queued', epoch = -1, attempt_number = 0}
  if ENDED[state.status] then
    if action == 'interrupt' and state.status == 'interrupted' then
      facts.status = state.status
      return reply('applied')
    end
    return refuse(state.status)
  end
  local forbidding = state.epoch < 0 and forbidden_by()
  if forbidding then return refuse(forbidding) end
  if scope == 'look' then return look() end
  if action == 'suspend' then return suspend_member(state) end
  if action == 'resume' then return resume_member(state) end
  return interrupt_member(state, def)
end

if not TRANSITIONS[header.status][action] then return refuse(header.status) end
if scope == 'look' then return look() end
if action == 'suspend' then
  if header.status ~= 'suspended' then suspend_record() end
elseif action == 'resume' then
  if header.status == 'suspended' then resume_record() end
else
  if header.status ~= 'interrupted' then interrupt_record() end
  if number('kept_until_ms') > NOW_MS then facts.is_scheduled = true end
end
return finish(header.status)
