-- settle: record how an attempt of a member ended, and decide what follows.
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
--   path     text   the member
--   run      text   Hatchet's workflow run id, or flow:<key> for a nested flow
--   attempt  text   from 1; 0 when whoever settles does not know it and any will do
--   outcome  text   succeeded, failed, timed_out, cancelled, retried; lost: Hatchet does not know the run; or
--                   unscheduled: Hatchet cancelled it because no worker took it within its schedule timeout
--   retry    text   0: the engine will not try again; 1: it will; n: it will unless so many attempts have failed
--   result   text   JSON, for succeeded
--   error    text   JSON, for everything else
--   message  text   JSON of the input that failed, for error callbacks
--   trace    text   the traceparent of the run
--   ...      text   what was sent before and is acknowledged on this occasion: path, epoch, run id, …
-- RESULT   the envelope of lib_flow; verdict settled, recorded (a retry is to come), repeated (it had been settled
--          so before; what is still unsent comes along), stale (another attempt owns the member), ended or gone; for
--          lost and unscheduled also resent (it is sent again; facts.resent says of what and why) and alive (its
--          worker says that the body runs)
-- TTL      every key of the record: refreshed, the done TTL once everything is over
-- ATOMIC   between "it succeeded" and "the next one is to be sent" no crash may come
-- INCLUDE  paths record flow again
if not read_head() then return {'gone', '{}', '', '', '', '', {}} end
acknowledge(11)
local path, run, attempt, outcome = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local def, state = definition(path), state_of(path)
if not def or not state then return {'gone', '{}', '', '', '', '', {}} end
local is_flow = flow_of_run(run) ~= nil
if is_flow and outcome == 'succeeded' and (state.st == 'failed' or state.st == 'cancelled') and state.run == run
  and reopen(path, state) then
  state.st = 'active'  -- the nested flow had failed, and succeeded after its step was replayed
end
if ENDED[state.st] then
  if state.run ~= run then return reply('stale') end
  if state.st == 'interrupted' then return reply('ended') end
  for _, waiting in ipairs(redis.call('HKEYS', O)) do sends[#sends + 1] = waiting end
  return reply('repeated')
end
if state.pr and state.pr.run == run and outcome == 'succeeded' then
  -- Hatchet had forgotten the run and the body went on to its end: its result counts, and its successor is called off.
  if state.run then post(cancellation_of(state.run), {k = 'cancel', ep = 0}) end
else
  if state.st == 'held' and not is_flow then return reply('stale') end
  if state.st == 'queued' and not is_flow and run ~= 'undeliverable' then return reply('stale') end
  if state.run and state.run ~= run then return reply('stale') end
  if attempt > 0 and not is_flow and attempt < state.at then
    -- A timeout: Hatchet starts the next attempt at once, and lets the worker end this one a second later.
    if ARGV[6] ~= '0' and state.st == 'active' and attempt > (state.fa or 0) then
      state.f, state.fa = (state.f or 0) + 1, attempt
      keep(path, state)
    end
    return reply('stale')
  end
end
if state.st == 'held' then
  redis.call('LREM', H, 0, held_as('start', path))
  redis.call('LREM', H, 0, held_as('member', path))
end
if outcome == 'lost' or outcome == 'unscheduled' then
  if state.st == 'active' and state.hb and NOW - state.hb < CFG.check * 2 then return reply('alive') end
  if resend(path, state, outcome) then
    touch()
    return reply('resent')
  end
end
if ARGV[10] ~= '' then state.tp = ARGV[10] end
if ARGV[8] ~= '' then
  state.er = ARGV[8]
  if string.find(state.er, '"task":""', 1, true) then
    -- Whoever settles for a run that was not its own does not know its task.
    local known, task = pcall(function() return cjson.decode(def.json).task end)
    local document = cjson.decode(state.er)
    if document.task == '' and known and type(task) == 'string' then
      document.task = task
      state.er = cjson.encode(document)
    end
  end
  if not owner_of(path) then put('err', state.er) end
end
local most, before = tonumber(ARGV[6]), (state.f or 0) - (state.fa == attempt and 1 or 0)
if most == 1 or most > 1 and before + 1 < most then
  if attempt > (state.fa or 0) then state.f, state.fa = (state.f or 0) + 1, attempt end
  keep(path, state)
  redis.call('ZADD', L, integer(NOW), path)
  touch()
  return reply('recorded')
end
state.run = run
if outcome == 'succeeded' then
  state.st, state.er = 'done', nil
  redis.call('HSET', V, path, ARGV[7])
else
  state.st = (outcome == 'cancelled' or outcome == 'unscheduled' and is_user_run(path)) and 'cancelled' or 'failed'
  if def.errors > 0 and ARGV[9] ~= '' then state.im = ARGV[9] end
end
state.lk = nil
keep(path, state)
redis.call('ZREM', L, path)
redis.call('HDEL', O, path)
if is_user_run(path) then redis.call('HDEL', V, input_of(path)) end
count(path, state, 1)
if head.st == 'suspended' then
  redis.call('RPUSH', H, held_as('ended', path))
else
  conclude(path, state, def)
end
touch()
return reply('settled')
