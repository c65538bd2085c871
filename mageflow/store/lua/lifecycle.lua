-- lifecycle: suspend, resume or interrupt a record or one member of it.
--
-- KEYS
--   record   hash   the record
--   defs     hash   definitions of its members
--   runs     hash   state of its members
--   results  hash   results of its members
--   live     zset   members sent or running
--   outbox   hash   what is still to be sent
--   held     list   members waiting for resume
--   due      zset   the reconciler's index of the shard
--   stats    zset   the counts of the shard
-- ARGS
--   config   json   TTLs and intervals
--   path     text   the member, or nothing for the record itself
--   action   text   suspend, resume or interrupt
--   by       text   who
--   why      text   why
--   error    text   JSON of the error an interrupt leaves
-- RESULT   the envelope of lib_flow; verdict applied, illegal or gone; facts.status is the status after it, or the one
--          that forbids it
-- TTL      every key of the record: refreshed
-- ATOMIC   a step that ends at the same moment must see the flow either suspended or not, and be sent once
-- INCLUDE  paths record flow
if not read_head() then return {'gone', '{}', '', '', '', '', {}} end
local path, action, by, why, err = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local function finish(verdict, status)
  facts.status = status
  return reply(verdict)
end

-- Apply the action to nested flows as well. It replaces an action that was not sent yet.
local function nested(what)
  put('passed', integer(number('passed') + 1))
  for _, live in ipairs(redis.call('ZRANGE', L, 0, -1)) do
    local state = state_of(live)
    local key = state and flow_of_run(state.run)
    if key then
      redis.call('HDEL', O, action_on('suspend', key), action_on('resume', key))
      post(action_on(what, key), {k = 'action', ep = number('passed')})
    end
  end
end

if path ~= '' then
  local def = definition(path)
  if not def then return {'gone', '{}', '', '', '', '', {}} end
  -- An epoch below zero says: not reached yet, and to be held when it is.
  local state = state_of(path) or {st = 'queued', ep = -1, at = 0}
  if ENDED[state.st] then
    return finish(action == 'interrupt' and state.st == 'interrupted' and 'applied' or 'illegal', state.st)
  end
  if action == 'suspend' then
    state.sus = true
    keep(path, state)
    touch()
    return finish('applied', 'suspended')
  end
  if action == 'resume' then
    local waits = state.sus and state.st == 'held'
    state.sus = nil
    keep(path, state)
    if waits then
      redis.call('LREM', H, 0, held_as('member', path))
      if head.st == 'suspended' then redis.call('RPUSH', H, held_as('start', path)) else enqueue(path, state.lk) end
    end
    touch()
    return finish('applied', state.st == 'active' and 'active' or 'pending')
  end
  if state.ep < 0 then return finish('illegal', 'pending') end
  redis.call('HDEL', O, path)
  redis.call('ZREM', L, path)
  redis.call('LREM', H, 0, held_as('member', path))
  redis.call('LREM', H, 0, held_as('start', path))
  if flow_of_run(state.run) then
    post(action_on('interrupt', flow_of_run(state.run)), {k = 'action', ep = 0})
  elseif state.run then
    post(cancellation_of(state.run), {k = 'cancel', ep = 0})
  end
  state.st, state.er = 'interrupted', err
  keep(path, state)
  count(path, state, 1)
  if head.st == 'suspended' then redis.call('RPUSH', H, held_as('ended', path)) else conclude(path, state, def) end
  touch()
  return finish('applied', 'interrupted')
end

local target = TRANSITIONS[head.st][action]
if not target then return finish('illegal', head.st) end
if action == 'suspend' then
  if head.st ~= 'suspended' then
    put('sub', head.st)
    set_status('suspended', by, why)
    for _, waiting in ipairs(redis.call('HKEYS', O)) do
      local state = state_of(waiting)
      if state and state.st == 'queued' then
        redis.call('HDEL', O, waiting)
        state.st = 'held'
        keep(waiting, state)
        redis.call('RPUSH', H, held_as('start', waiting))
      end
    end
    nested('suspend')
  end
elseif action == 'resume' then
  if head.st == 'suspended' then
    local waiting = redis.call('LRANGE', H, 0, -1)
    redis.call('DEL', H)
    if head.sub == 'pending' and (head.started or '') ~= '' and head.kind ~= 'task' then
      set_status('active', by, why)
      begin()
    else
      set_status(head.sub, by, why)
    end
    for _, entry in ipairs(waiting) do
      local what, one = read_held(entry)
      if what == 'member' then redis.call('RPUSH', H, entry) end
      local state, def = state_of(one), definition(one)
      if state and def and what == 'start' and state.st == 'held' then
        enqueue(one, state.lk)
      elseif state and def and what == 'ended' then
        conclude(one, state, def)
      end
    end
    fill(true)
    finish_swarm()
    items_changed()
    nested('resume')
  end
elseif head.st ~= 'interrupted' then
  stop_members('interrupted', err)
  if head.kind == 'task' then
    set_status('interrupted', by, why)
    put('ended', integer(NOW))
    put('err', err)
  else
    close('interrupt', err, by, why)
  end
end
touch()
return finish('applied', head.st)
