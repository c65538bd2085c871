-- admit: decide whether a run may execute a member, and mark the member active if so.
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
--   epoch    text   which dispatch of the member this is, or nothing if the run does not carry it
--   run      text   Hatchet's workflow run id
--   task_run text   Hatchet's id of the task in the run
--   worker   text   the worker
--   attempt  text   from 1
--   input    text   the input of a user's own run, kept until it has ended: it may have to be sent again
--   trace    text   the traceparent of the run
--   replay   text   1 when Hatchet says that a user has replayed the run
--   options  text   JSON: metadata and priority of a user's own run, for its callbacks; or nothing
--   tasks    text   names of the task that the run executes, in lower case, each between two line feeds; or nothing
--   workflow text   task: one of several tasks of a workflow, each of which calls this with attempt 1; hook: its task
--                   for the end; or nothing
--   view     text   1 when the caller shows the signature: the reply has all of the header, and the state; or nothing
-- RESULT   {run, go_on, over, replay, skip, ended, foreign, missing or invalid; status or stored result; header;
--          definition; success callbacks; error callbacks; state; milliseconds since handed_ms, or -1; how
--          many attempts of this run have failed}; after skip only the run that owns the member, if there is one;
--          go_on: as run, for a further task of the workflow; over: the workflow has ended
-- TTL      every key of the record: refreshed
-- ATOMIC   of two runs of one member only one may execute the task function
-- INCLUDE  paths damage record flow restart
-- FIRST    history usual admit_usual
local path, epoch, run_id, task_run_id, worker_id = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local attempt_number, input, traceparent, is_replay = tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10] == '1'
local workflow = ARGV[13]
if not read_header() then return {'missing', ''} end
check_types()
local def = definition(path)
if not def then return {'missing', ''} end
if not def.is_task then return {'invalid', 'not a task'} end

-- Metadata is copied: by users to runs of other tasks, and by programs that try to take over a step. A run of
-- another task is not this member, even if its metadata says so.
local function is_foreign(tasks)
  local task = string.match(def.json, '^{"v":%d+,"kind":"task","task":"([^"\\]*)"')
  if not task then
    local is_readable, document = pcall(cjson.decode, def.json)
    task = is_readable and type(document) == 'table' and document.task
  end
  if type(task) ~= 'string' then return false end
  return not string.find(tasks, '\n' .. string.lower(task) .. '\n', 1, true)
end

if ARGV[12] ~= '' and is_foreign(ARGV[12]) then return {'foreign', ''} end
local state, own = state_of(path), is_user_run(path)
if not state and not own then return {'skip', 'pending'} end
state = state or {status = 'queued', epoch = 0, attempt_number = 0}
if own and ARGV[11] ~= '' and not state.options then state.options = ARGV[11] end
if state.status == 'done' and state.run_id == run_id and workflow == '' then
  return {'replay', redis.call('HGET', RESULTS, path) or 'null'}
end
-- A later attempt of a run that had failed: a user has replayed it, or its worker died before Hatchet knew of the
-- failure. Only Hatchet can distinguish the two.
local is_later_attempt = (state.status == 'failed' or state.status == 'cancelled') and state.run_id == run_id
  and attempt_number > state.attempt_number and (state.task_run_id or task_run_id) == task_run_id
-- A run of a workflow is settled when all its tasks have ended. A task that comes after a failure was replayed.
local is_own_workflow = workflow ~= '' and state.run_id == run_id
if is_own_workflow and (state.status == 'failed' or state.status == 'cancelled') and workflow == 'task' then
  is_later_attempt, is_replay = true, true
elseif is_own_workflow and ENDED[state.status] and state.status ~= 'interrupted' then
  return {'over', state.status}
end
-- A workflow that has begun goes to its end, as a task function does.
local goes_on = is_own_workflow and state.status == 'active'
local owner_run = type(state.run_id) == 'string' and state.run_id or ''
if ENDED[state.status] and not is_later_attempt then return {'skip', state.status, owner_run} end
if is_later_attempt and not is_replay then return {'ended', state.status, state.attempt_number} end
if epoch ~= '' and tonumber(epoch) ~= state.epoch then return {'skip', 'superseded'} end
if state.status == 'active' and state.run_id ~= run_id then return {'skip', 'duplicate', owner_run} end
if state.status == 'active' and attempt_number < state.attempt_number then
  return {'skip', 'superseded', owner_run}
end
if is_later_attempt then
  if not reopen(path, state) then return {'skip', header.status} end
  state.status, state.failures, state.failed_attempt = 'sent', nil, nil
end

if (header.status == 'suspended' or state.suspended) and not goes_on then
  if state.status ~= 'held' then
    state.status, state.run_id = 'held', nil
    if own and input ~= '' then redis.call('HSET', RESULTS, input_of(path), input) end
    redis.call('HDEL', OUTBOX, path)
    redis.call('ZREM', LIVE, path)
    hold(state.suspended and 'member' or 'start', path)
    save_state(path, state)
    refresh()
  end
  return {'skip', 'suspended'}
end

if goes_on then  -- nothing of the record changes
elseif own then
  if TRANSITIONS[header.status].start ~= 'active' then return {'skip', header.status} end
  set_status('active')
  if not has_started() then put('started_ms', integer(NOW_MS)) end
elseif not owner_of(path) and header.status ~= 'active' then
  return {'skip', header.status}
end
local handover_ms = -1
if state.status ~= 'active' and is_flow() and not owner_of(path) and type(state.handed_ms) == 'number' then
  handover_ms = math.max(0, NOW_MS - state.handed_ms)
end
state.handed_ms = nil
if state.run_id ~= run_id then state.failures, state.failed_attempt = nil, nil end
state.status, state.run_id, state.attempt_number = 'active', run_id, attempt_number
state.task_run_id, state.worker_id = task_run_id, worker_id
state.attempts, state.admitted_ms = (state.attempts or 0) + 1, state.admitted_ms or NOW_MS
state.lost_before_start, state.unscheduled_ms, state.heartbeat_ms = nil, nil, nil
state.is_workflow = workflow ~= '' or nil
if traceparent ~= '' then state.traceparent = traceparent end
if own and input ~= '' then redis.call('HSET', RESULTS, input_of(path), input) end
save_state(path, state)
redis.call('HDEL', OUTBOX, path)
set_live(path)
put('last_run', cjson.encode({run_id = run_id, task_run_id = task_run_id, worker_id = worker_id}))
put('attempts', integer(number('attempts') + 1))
delete_old_runs()
refresh()
local is_wanted = ARGV[14] == '1'
local flat = is_wanted and flat_header() or {
  'name', header.name or '', 'total', header.total or '0', 'traceparent', header.traceparent or '',
}
return {
  goes_on and 'go_on' or 'run', header.status, flat, def.json, def.success_callbacks, def.error_callbacks,
  is_wanted and cjson.encode(state) or '', handover_ms, state.failures or 0,
}
