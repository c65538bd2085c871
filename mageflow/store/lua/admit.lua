-- admit: decide whether a run may execute a member, and mark it active if so.
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
--   epoch    text   which dispatch of the member this is, or nothing if the run does not say
--   run      text   Hatchet's workflow run id
--   step     text   Hatchet's step run id
--   worker   text   the worker
--   attempt  text   from 1
--   message  text   the input of a user's own run, kept until it has ended: it may have to be sent again
--   trace    text   the traceparent of the run
--   replay   text   1 when Hatchet says that somebody has replayed the run
-- RESULT   {run, replay, skip, ended, missing or invalid; status or stored result; header; definition; successes; errors;
--          state; milliseconds since the step before ended, or -1; how many attempts of this run have failed}
-- TTL      every key of the record: refreshed
-- ATOMIC   two runs that are told to go would both execute the body
-- INCLUDE  paths record flow again
if not read_head() then return {'missing', ''} end
local path, run, attempt = ARGV[2], ARGV[4], tonumber(ARGV[7])
local def = definition(path)
if not def then return {'missing', ''} end
if def.kind ~= 'T' then return {'invalid', 'not a task'} end
local state = state_of(path)
local own = is_user_run(path)
if not state and not own then return {'skip', 'pending'} end
state = state or {st = 'queued', ep = 0, at = 0}
if state.st == 'done' and state.run == run then
  return {'replay', redis.call('HGET', V, path) or 'null'}
end
-- A later attempt of a run that had failed: somebody has replayed it, or the worker died before it could tell Hatchet of
-- the failure. Only Hatchet knows which.
local was_replayed = (state.st == 'failed' or state.st == 'cancelled') and state.run == run and attempt > state.at
  and (state.step or ARGV[5]) == ARGV[5]
if ENDED[state.st] and not was_replayed then return {'skip', state.st} end
if was_replayed and ARGV[10] ~= '1' then return {'ended', state.st, state.at} end
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= state.ep then return {'skip', 'superseded'} end
if state.st == 'active' and state.run ~= run then return {'skip', 'duplicate'} end
if state.st == 'active' and attempt < state.at then return {'skip', 'superseded'} end
if was_replayed then
  if not reopen(path, state) then return {'skip', head.st} end
  state.st, state.f, state.fa = 'sent', nil, nil
end
if head.st == 'suspended' or state.sus then
  if state.st ~= 'held' then
    state.st = 'held'
    state.run = nil
    if own and ARGV[8] ~= '' then redis.call('HSET', V, input_of(path), ARGV[8]) end
    redis.call('HDEL', O, path)
    redis.call('ZREM', L, path)
    redis.call('RPUSH', H, held_as(state.sus and 'member' or 'start', path))
    keep(path, state)
    touch()
  end
  return {'skip', 'suspended'}
end
if own then
  local status = TRANSITIONS[head.st].start
  if status ~= 'active' then return {'skip', head.st} end
  set_status('active')
  if (head.started or '') == '' then put('started', integer(NOW)) end
elseif not owner_of(path) and head.st ~= 'active' then
  return {'skip', head.st}
end
local handover = -1
if state.st ~= 'active' and head.kind == 'chain' and tonumber(path) and tonumber(path) > 0 then
  local before = state_of(integer(tonumber(path) - 1))
  if before then handover = NOW - before.t end
end
if state.run ~= run then state.f, state.fa = nil, nil end
state.st, state.run, state.step, state.wk, state.at = 'active', run, ARGV[5], ARGV[6], attempt
state.n = (state.n or 0) + 1
state.ls, state.qd, state.hb = nil, nil, nil
if own and ARGV[8] ~= '' then redis.call('HSET', V, input_of(path), ARGV[8]) end
if ARGV[9] ~= '' then state.tp = ARGV[9] end
keep(path, state)
redis.call('HDEL', O, path)
redis.call('ZADD', L, integer(NOW), path)
put('run', cjson.encode({run = run, step = ARGV[5], wk = ARGV[6]}))
put('att', integer(number('att') + 1))
forget_old_runs()
touch()
head.msg, head.carry = nil, nil
local flat = {}
for name, value in pairs(head) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
return {'run', head.st, flat, def.json, def.successes, def.errors, cjson.encode(state), handover, state.f or 0}
