-- verb: suspend, resume or interrupt a record or one member of it.
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
--   verb     text   suspend, resume or interrupt
--   by       text   who
--   why      text   why
--   error    text   JSON of the error an interrupt leaves
-- RESULT   the envelope of lib_flow; verdict the status reached, gone, or illegal:<status>
-- TTL      every key of the record: refreshed
-- ATOMIC   a step that ends at the same moment must see the flow either suspended or not, and be sent once
-- INCLUDE  record flow
if not read_head() then return {'gone', '{}', '', '', '', '', {}} end
local path, verb, by, why, err = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- Pass a verb on to nested flows; what was to be passed on before and was not yet is overtaken by it.
local function nested(what)
  put('passed', integer(number('passed') + 1))
  for _, live in ipairs(redis.call('ZRANGE', L, 0, -1)) do
    local state = state_of(live)
    if state and state.run and string.sub(state.run, 1, 5) == 'flow:' then
      local key = string.sub(state.run, 6)
      redis.call('HDEL', O, '!v:suspend:' .. key, '!v:resume:' .. key)
      post('!v:' .. what .. ':' .. key, {k = 'verb', ep = number('passed')})
    end
  end
end

if path ~= '' then
  local def = definition(path)
  if not def then return {'gone', '{}', '', '', '', '', {}} end
  -- An epoch below zero says: not reached yet, and to be held when it is.
  local state = state_of(path) or {st = 'queued', ep = -1, at = 0}
  if ENDED[state.st] then
    return reply(verb == 'interrupt' and state.st == 'interrupted' and 'interrupted' or 'illegal:' .. state.st)
  end
  if verb == 'suspend' then
    state.sus = true
    keep(path, state)
    touch()
    return reply('suspended')
  end
  if verb == 'resume' then
    local waits = state.sus and state.st == 'held'
    state.sus = nil
    keep(path, state)
    if waits then
      redis.call('LREM', H, 0, 'm' .. path)
      if head.st == 'suspended' then redis.call('RPUSH', H, 'h' .. path) else enqueue(path, state.lk) end
    end
    touch()
    return reply(state.st == 'active' and 'active' or 'pending')
  end
  if state.ep < 0 then return reply('illegal:pending') end
  redis.call('HDEL', O, path)
  redis.call('ZREM', L, path)
  redis.call('LREM', H, 0, 'm' .. path)
  redis.call('LREM', H, 0, 'h' .. path)
  if state.run and string.sub(state.run, 1, 5) == 'flow:' then
    post('!v:interrupt:' .. string.sub(state.run, 6), {k = 'verb', ep = 0})
  elseif state.run then
    post('!c:' .. state.run, {k = 'cancel', ep = 0})
  end
  state.st, state.er = 'interrupted', err
  keep(path, state)
  count(path, state, 1)
  if head.st == 'suspended' then redis.call('RPUSH', H, 'd' .. path) else conclude(path, state, def) end
  touch()
  return reply('interrupted')
end

local target = TRANSITIONS[head.st][verb]
if not target then return reply('illegal:' .. head.st) end
if verb == 'suspend' then
  if head.st ~= 'suspended' then
    put('sub', head.st)
    set_status('suspended', by, why)
    for _, waiting in ipairs(redis.call('HKEYS', O)) do
      local state = state_of(waiting)
      if state and state.st == 'queued' then
        redis.call('HDEL', O, waiting)
        state.st = 'held'
        keep(waiting, state)
        redis.call('RPUSH', H, 'h' .. waiting)
      end
    end
    nested('suspend')
  end
elseif verb == 'resume' then
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
      local one = string.sub(entry, 2)
      if string.sub(entry, 1, 1) == 'm' then redis.call('RPUSH', H, entry) end
      local state, def = state_of(one), definition(one)
      if state and def and string.sub(entry, 1, 1) == 'h' and state.st == 'held' then
        enqueue(one, state.lk)
      elseif state and def and string.sub(entry, 1, 1) == 'd' then
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
return reply(head.st)
