-- settle: record how an attempt ended, and decide what follows.
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
--   path     text   the member
--   run      text   Hatchet's workflow run id, flow:<record key> for a nested flow, or undeliverable
--   attempt  text   from 1; 0 when the outcome was read from Hatchet and applies to any attempt
--   outcome  text   succeeded, failed, timed_out, cancelled, retried; lost: Hatchet does not know the run; or
--                   unscheduled: Hatchet cancelled it because no worker took it within its schedule timeout
--   retry    text   0: the engine will not try again; 1: it will; n: it will unless so many attempts have failed
--   result   text   JSON, for succeeded
--   error    text   JSON, for everything else
--   input    text   JSON of the input that failed, for error callbacks of the member and of its flow
--   trace    text   the traceparent of the run
--   stages   text   JSON object: milliseconds of this attempt by stage; or nothing
--   ...      text   entries of the outbox that were sent before: field, epoch, run id, ...
-- RESULT   the word settled, where nothing follows from the end of a user's run; else the envelope of lib_flow; verdict
--          settled, recorded (a retry is to come), repeated (it had been settled so before; what is still unsent comes
--          along), stale (another attempt owns the member), ended or gone; for lost and unscheduled also resent (it is
--          sent again; facts.resent says which run and why) and alive (its worker reports that the task function runs)
-- TTL      every key of the record: refreshed, the done TTL once everything is over
-- ATOMIC   a crash between the end of one member and the dispatch of the next would lose the flow
-- INCLUDE  paths damage record flow restart
-- FIRST    history usual settle_usual
local path, run_id, attempt_number, outcome, retry = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local result, err, input, traceparent, stages = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]

if not read_header() then return GONE end
check_types()
acknowledge(12)
local def, state = definition(path), state_of(path)
if not def or not state then return GONE end
local is_nested = flow_of_run(run_id) ~= nil
if is_nested and outcome == 'succeeded' and (state.status == 'failed' or state.status == 'cancelled')
  and state.run_id == run_id and reopen(path, state) then
  state.status = 'active'  -- the nested flow had failed, and succeeded after its step was replayed
end
if ENDED[state.status] then
  if state.run_id ~= run_id then return reply('stale') end
  if state.status == 'interrupted' then return reply('ended') end
  for _, field in ipairs(redis.call('HKEYS', OUTBOX)) do to_send[#to_send + 1] = field end
  return reply('repeated')
end

if state.previous and state.previous.run_id == run_id and outcome == 'succeeded' then
  -- Hatchet had lost the run and its task function went on to its end: its result counts, its successor is cancelled.
  if state.run_id then send(cancellation_of(state.run_id), {epoch = 0}) end
else
  if state.status == 'held' and not is_nested then return reply('stale') end
  if state.status == 'queued' and not is_nested and run_id ~= UNDELIVERABLE then return reply('stale') end
  if state.run_id and state.run_id ~= run_id then return reply('stale') end
  if attempt_number > 0 and not is_nested and attempt_number < state.attempt_number then
    -- A timeout: Hatchet starts the next attempt at once, and lets the worker end this one a second later.
    if retry ~= 0 and state.status == 'active' and attempt_number > (state.failed_attempt or 0) then
      state.failures, state.failed_attempt = (state.failures or 0) + 1, attempt_number
      save_state(path, state)
    end
    return reply('stale')
  end
end
if state.status == 'held' then
  unhold('start', path)
  unhold('member', path)
end

if outcome == 'lost' or outcome == 'unscheduled' then
  local has_heartbeat = state.heartbeat_ms and NOW_MS - state.heartbeat_ms < SETTINGS.check_ms * 2
  if state.status == 'active' and has_heartbeat then return reply('alive') end
  if resend(path, state, outcome) then
    refresh()
    return reply('resent')
  end
end

if traceparent ~= '' then state.traceparent = traceparent end
if err ~= '' then
  state.error = err
  if string.find(err, '"task":""', 1, true) then
    -- The sender of this outcome did not run the task and does not know its name.
    local is_known, task = pcall(function() return cjson.decode(def.json).task end)
    local document = cjson.decode(err)
    if document.task == '' and is_known and type(task) == 'string' then
      document.task = task
      state.error = cjson.encode(document)
    end
  end
  if not owner_of(path) then put('error', state.error) end
end
local failures = (state.failures or 0) - (state.failed_attempt == attempt_number and 1 or 0)
if retry == 1 or retry > 1 and failures + 1 < retry then
  if attempt_number > (state.failed_attempt or 0) then
    state.failures, state.failed_attempt = (state.failures or 0) + 1, attempt_number
    usual_add_stages(state, stages)
  end
  save_state(path, state)
  set_live(path)
  refresh()
  return reply('recorded')
end

state.run_id, state.link = run_id, nil
usual_add_stages(state, stages)
if outcome == 'succeeded' then
  state.status, state.error = 'done', nil
  redis.call('HSET', RESULTS, path, result)
else
  local is_cancelled = outcome == 'cancelled' or outcome == 'unscheduled' and is_user_run(path)
  state.status = is_cancelled and 'cancelled' or 'failed'
  if def.error_callbacks > 0 and input ~= '' then state.failed_input = input end
  if is_flow() and not owner_of(path) and not ENDED[header.status] then keep_failed_input(input) end
end
save_state(path, state)
redis.call('ZREM', LIVE, path)
redis.call('HDEL', OUTBOX, path)
if is_user_run(path) then redis.call('HDEL', RESULTS, input_of(path)) end
count_end(path, state, 1)
if header.status == 'suspended' then hold('ended', path) else conclude(path, state, def) end
refresh()
return reply('settled')
