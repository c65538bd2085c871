-- Library of the record scripts: reading and writing one record, its status, its TTLs and its place in the indexes.
-- Expects KEYS and ARGV[1] as every record script declares them, and FORMAT, TRANSITIONS and ENDED from the prelude.
-- Needs lib_history, lib_paths and lib_damage.
--
-- docs/storage.md holds the same table and says when each field goes. A test compares the two, and finds every field of
-- them in Redis. WRITTEN BY names scripts; dispatch is every script that dispatches a member, fill every script that
-- fills places of a swarm, send every acknowledgement that a member was sent. JSON text is JSON that no script reads.
--
-- FIELD                       TYPE         WRITTEN BY         MEANING
--   record                    hash                            header field -> value
--     format                  number       create             version of the stored format
--     kind                    word         create             task, chain or swarm
--     name                    text         create             the task's name, or the flow's name in telemetry
--     status                  word         every change       pending, active, suspended, done, failed, cancelled or
--                                                             interrupted
--     suspended_from          word         lifecycle          the status to return to at resume
--     history                 [change]     every change       the last 32 changes of status, oldest first; of each:
--                                                             at_ms, status, by, why
--     created_ms              epoch ms     create             when it was stored
--     updated_ms              epoch ms     every change       when anything of it last changed
--     started_ms              epoch ms     start, admit       when the flow, or a first run of the signature, began
--     ended_ms                epoch ms     settle, lifecycle  when it ended
--     started_by              text         start              who started the flow
--     starts_ms               epoch ms     schedule           when the flow starts by itself; until it begins
--     kept_until_ms           epoch ms     schedule           the last start that is scheduled: the record lives for the
--                                                             active TTL after it
--     attempts                number       admit              attempts admitted so far, of all members
--     last_run                run          admit              the run admitted last: run_id, task_run_id, worker_id
--     error                   JSON text    settle, lifecycle  the last error of a step, an item or a user's run
--     failed_input            JSON text    settle             the input of the step or item that failed last, if error
--                                                             callbacks of the flow, or of its parent, may need it
--     message                 JSON text    start, schedule    the whole message the flow was started with
--     message_set             JSON text    start, schedule    the part of it that the caller set, if not the whole
--     options                 JSON text    start, schedule    metadata and priority of every run of the flow
--     parent                  member key   start              the parent's member that this flow stands for
--     parent_value            JSON text    start              what the parent handed to it: {"result": ...} or
--                                                             {"error": ...}
--     traceparent             text         start              the context that runs of the flow belong under
--     actions_sent            number       lifecycle          suspensions and resumptions sent to nested flows; the
--                                                             epoch of their entries
--     kept_members            number       admit              of a signature: members left when old runs were last
--                                                             deleted
--     total                   number       create, swarm      steps or items
--     step                    number       create, settle     of a chain: steps that have succeeded
--     next_item               number       create, fill       of a swarm: the item that starts next
--     running                 number       create, fill       of a swarm: items that have started and not ended
--     succeeded               number       create, settle     of a swarm: items that succeeded
--     failed                  number       create, settle     of a swarm: items that ended in another way
--     max_running             number       create             of a swarm: places for running items
--     stop_after_failures     number       create             of a swarm: it fails with so many failed items; 0: never
--     max_items               number       create             of a swarm: items it may hold; 0: no limit
--     refill_linger_ms        ms           create             of a swarm: how long free places wait for more free
--                                                             places
--     refill_batch            number       create             of a swarm: so many free places are filled at once
--     closed                  0 or 1       create, swarm      of a swarm: whether it accepts no more items
--     copies                  copies       create, swarm,     of a signature: where it was copied to, the last 32
--                                          copied             member keys, and whether there are more
--     freed_ms                epoch ms     fill               of a swarm: since when free places wait
--     freed_after_ms          text         fill               of a swarm: for each free place that waits, milliseconds
--                                                             after freed_ms at which it became free: 0,12,340
--   definitions               hash         create, swarm      definition path -> definition: <letter>:<success
--                                                             callbacks>:<error callbacks>|<JSON text>, with T task, F
--                                                             nested flow, C chain, S swarm as the letter
--   members                   hash                            path -> state of the member
--     status                  word         every change       queued (decided, not known to be sent), sent (handed to
--                                                             Hatchet), held (waits for resume), active, done, failed,
--                                                             cancelled or interrupted
--     epoch                   number       dispatch           number of the dispatch, from 0; -1: not reached yet
--     attempt_number          number       dispatch, admit    the attempt that runs; 0: none was admitted
--     changed_ms              epoch ms     every change       when this state last changed
--     decided_ms              epoch ms     dispatch           when this dispatch was decided
--     handed_ms               epoch ms     dispatch           when what came before it ended: the step before, the item
--                                                             whose place it gets, or what the flow is nested behind.
--                                                             Of a nested flow its first steps have it too
--     admitted_ms             epoch ms     admit              when the first attempt of this dispatch was admitted
--     stages                  JSON text    settle             milliseconds by stage, of the attempts that ended
--     run_id                  run id       send, admit        the run that owns the member
--     task_run_id             text         admit              Hatchet's id of the task in the run
--     worker_id               text         admit              the worker
--     is_workflow             true         admit              its run has several tasks: a workflow
--     attempts                number       admit              attempts admitted, of all dispatches
--     failures                number       settle             failed attempts of this run
--     failed_attempt          number       settle             the highest attempt that is counted in failures
--     lost_before_start       number       settle             dispatches lost before an attempt was admitted, in a row
--     lost_after_start        number       settle             dispatches lost after an attempt was admitted
--     unscheduled_ms          epoch ms     settle             when the first run was sent that no worker took, in a row
--     resends                 number       settle             how often it was sent again because its run was gone
--     previous                run          settle             the run before, which may still end: run_id,
--                                                             attempt_number
--     heartbeat_ms            epoch ms     alive              the last heartbeat of the process that runs it
--     link                    text         dispatch           traceparent of the run that led to this one
--     traceparent             text         admit, settle      the context of its run
--     suspended               true         lifecycle          this member itself is suspended
--     error                   JSON text    settle, lifecycle  the error of its last failed attempt
--     failed_input            JSON text    settle             the input that failed, for error callbacks
--     options                 JSON text    admit              of a user's run: metadata and priority of its callbacks
--   members[added:<token>]    number       swarm              index of the first item of one addition
--   results                   hash         settle             path -> result of the member, as JSON text
--   results[input:<path>]     JSON text    admit              the input of a user's run
--   live                      zset         send, admit        path -> epoch ms of the last sign of life; members that
--                                                             were sent or run
--   outbox                    hash                            field -> entry, not known to be sent
--     kind                    word         dispatch           of a member: run (a task) or flow (a nested flow)
--     epoch                   number       dispatch           number of the dispatch; of an action its number
--     decided_ms              epoch ms     dispatch           when it was decided
--     claimed_until_ms        epoch ms     inspect, settle    no reconciler sends it before this time
--     tries                   number       inspect            how often a reconciler has claimed it
--   held                      list         admit, settle,     what waits for resume, in order: start:<path>,
--                                          lifecycle          ended:<path>, member:<path>
--   due                       zset         every change       record key -> epoch ms at which a reconciler looks at it
--   stats:<kind>:<status>     zset         every change       id -> epoch ms at which the record expires
--   stats:started:<kind>      zset         start              id -> epoch ms of the start, of flows that have not ended
--   damaged                   hash         put_aside, every   key or entry of an index -> what cannot be read:
--                                          change             kind, reason, at_ms, reported
--   stats:items               hash         fill, settle       id -> "<pending>,<running>,<succeeded>,<failed>" items of
--                                                             a swarm that has not ended

local RECORD, DEFINITIONS, MEMBERS, RESULTS, LIVE, OUTBOX, HELD, DUE, STATS = unpack(KEYS, 1, 9)
local SETTINGS = cjson.decode(ARGV[1])  -- active_ttl_s, done_ttl_s, grace_ms, check_ms
local CLOCK = redis.call('TIME')
local NOW_MS = CLOCK[1] * 1000 + math.floor(CLOCK[2] / 1000)
local IDENTITY = string.match(RECORD, '([^:]*)$')
local MAX_MISSING_DEFINITIONS = 1000
local STARTED_FLOWS, ITEM_COUNTS = STATS .. ':started:', STATS .. ':items'

local header = {}
local facts = {}  -- what a reply says beside what has to be sent
local to_send = {}  -- fields of the outbox that the reply carries

-- Ends the script. The caller gets SignatureInvalidError with the reason.
local function damaged(reason) error(redis.error_reply('DAMAGED ' .. reason)) end

local function number(field)
  local text = header[field]
  if not text then return 0 end
  if #text > 20 or not string.find(text, '^%-?%d+$') then damaged('the field ' .. field .. ' is no number') end
  return tonumber(text)
end

-- Loops over steps and items run to these numbers. Redis serves no other client while a script runs, so a number that
-- is far above what is stored ends the script.
local function check_counts()
  local total, stored = number('total'), redis.call('HLEN', DEFINITIONS)
  if total < 0 or total > stored + MAX_MISSING_DEFINITIONS then
    damaged('the field total is ' .. header.total .. ', with ' .. stored .. ' definitions')
  end
  for _, field in ipairs({'step', 'next_item'}) do
    if number(field) < 0 or number(field) > total then damaged('the field ' .. field .. ' is ' .. header[field]) end
  end
end

-- False when the record is not stored. A record of another format, or with counts that cannot be true, ends the script
-- before it changes anything.
local function read_header()
  local flat = redis.call('HGETALL', RECORD)
  for i = 1, #flat, 2 do header[flat[i]] = flat[i + 1] end
  if #flat == 0 then return false end
  if header.format ~= FORMAT then
    local stored = string.match(header.format or '', '^%d%d?%d?%d?$') or '0'
    error(redis.error_reply('FOREIGNFORMAT ' .. stored))
  end
  if header.total then check_counts() end
  return true
end

-- A key of another type ends the script here. Later the script would stop at its third of five writes, and the record
-- would say that a run has ended whose result is not stored.
local function check_types()
  for _, key in ipairs({MEMBERS, RESULTS, OUTBOX}) do redis.call('HLEN', key) end
  redis.call('ZCARD', LIVE)
  if header.kind ~= 'task' or header.status == 'suspended' then redis.call('LLEN', HELD) end
end

local function put(field, value)
  header[field] = tostring(value)
  redis.call('HSET', RECORD, field, header[field])
end

local function clear(field)
  if not header[field] then return end
  header[field] = nil
  redis.call('HDEL', RECORD, field)
end

local function integer(value) return string.format('%.0f', value) end

local function has_started() return header.started_ms ~= nil end

local function is_flow() return header.kind ~= 'task' end

local ONLY_FOR_SCRIPTS = {
  message = true, message_set = true, parent_value = true, options = true, failed_input = true,
}

-- Header fields for a reader, without those that only scripts use and that may be large.
local function flat_header()
  local flat = {}
  for field, value in pairs(header) do
    if not ONLY_FOR_SCRIPTS[field] then
      flat[#flat + 1] = field
      flat[#flat + 1] = value
    end
  end
  return flat
end

local function definition(path)
  local raw = redis.call('HGET', DEFINITIONS, definition_path(path))
  if not raw then return nil end
  local letter, successes, errors, start = string.match(raw, '^(%a):(%d+):(%d+)|()')
  if not letter then return nil end
  successes, errors = tonumber(successes), tonumber(errors)
  if successes + errors >= redis.call('HLEN', DEFINITIONS) + MAX_MISSING_DEFINITIONS then
    damaged('the definition of ' .. path .. ' has more callbacks than there are definitions')
  end
  return {
    is_task = letter == 'T', success_callbacks = successes, error_callbacks = errors, json = string.sub(raw, start),
  }
end

local function state_of(path)
  local raw = redis.call('HGET', MEMBERS, path)
  if not raw then return nil end
  local state = cjson.decode(raw)
  if type(state) ~= 'table' or type(state.status) ~= 'string' then
    damaged('the state of ' .. path .. ' is no object with a status')
  end
  return state
end

local function save_state(path, state)
  state.changed_ms = NOW_MS
  redis.call('HSET', MEMBERS, path, cjson.encode(state))
end

local function set_live(path) redis.call('ZADD', LIVE, integer(NOW_MS), path) end

local function hold(what, path) redis.call('RPUSH', HELD, held_as(what, path)) end

local function unhold(what, path) redis.call('LREM', HELD, 0, held_as(what, path)) end

local function count_key(status) return STATS .. ':' .. (header.kind or '') .. ':' .. status end

local function add_history(history, status, by, why)
  put('history', history_with(history, cjson.encode({at_ms = NOW_MS, status = status, by = by, why = why})))
end

-- Add to the history what happened at an unchanged status; the same topic twice in a row is one entry.
local function note(topic, text)
  local history = cjson.decode(header.history or '[]')
  local last = history[#history]
  local times = 1
  if last and string.sub(last.why, 1, #topic) == topic then
    times = (tonumber(string.match(last.why, ' %((%d+) times%)$')) or 1) + 1
    table.remove(history)
  end
  local why = topic .. ': ' .. text .. (times > 1 and ' (' .. times .. ' times)' or '')
  add_history(cjson.encode(history), header.status, '', why)
end

-- The status is written before anything is deleted: a full Redis lets a script write all that follows after a first
-- write that needs no memory, and must not admit a run whose end it will refuse.
local function set_status(status, by, why)
  local before = header.status
  put('status', status)
  if before == status then return end
  if before then on_index('ZREM', count_key(before), IDENTITY) end
  add_history(header.history or '[]', status, by or '', why or '')
end

-- An index lives for twice the active TTL after the last write in its shard, and longer for a record that is scheduled.
local function keep_index(key, kept_s)
  local ttl_s = SETTINGS.active_ttl_s * 2 + kept_s
  if redis.call('PTTL', key) < ttl_s * 1000 then redis.call('EXPIRE', key, ttl_s) end
end

-- Refresh the TTLs, and the times at which the record is counted and reconciled. Every script that changes a record
-- calls this last.
local function refresh()
  local kept_s = math.max(0, math.ceil((number('kept_until_ms') - NOW_MS) / 1000))
  local active_ttl_s = SETTINGS.active_ttl_s + kept_s
  local has_unsent = redis.call('HLEN', OUTBOX) > 0
  local is_open = has_unsent or redis.call('ZCARD', LIVE) > 0
  local is_over = ENDED[header.status] and not is_open
  local ttl_s = is_over and SETTINGS.done_ttl_s or active_ttl_s
  put('updated_ms', integer(NOW_MS))
  for i = 1, 7 do redis.call('EXPIRE', KEYS[i], ttl_s) end
  local counted_ttl_s = ENDED[header.status] and SETTINGS.done_ttl_s or active_ttl_s
  on_index('ZADD', count_key(header.status), integer(NOW_MS + counted_ttl_s * 1000), IDENTITY)
  keep_index(count_key(header.status), kept_s)
  if not is_open and header.starts_ms and not ENDED[header.status] then
    on_index('ZADD', DUE, header.starts_ms, RECORD)
    keep_index(DUE, kept_s)
  elseif is_over or (not is_open and (header.status == 'pending' or header.status == 'suspended')) then
    on_index('ZREM', DUE, RECORD)
  else
    on_index('ZADD', DUE, 'LT', integer(NOW_MS + (has_unsent and SETTINGS.grace_ms or SETTINGS.check_ms)), RECORD)
    keep_index(DUE, kept_s)
  end
end

-- The members of a plain signature grow with every run by its user: the oldest ended ones are deleted. Looking costs as
-- much as there are members, so it is done when they are twice as many as were left.
local function delete_old_runs()
  if is_flow() or redis.call('HLEN', MEMBERS) <= math.max(64, number('kept_members') * 2) then return end
  local ended, flat = {}, redis.call('HGETALL', MEMBERS)
  for i = 1, #flat, 2 do
    local state = cjson.decode(flat[i + 1])
    if ENDED[state.status] then ended[#ended + 1] = {path = flat[i], changed_ms = state.changed_ms} end
  end
  table.sort(ended, function(a, b) return a.changed_ms < b.changed_ms end)
  for i = 1, #ended - 32 do
    redis.call('HDEL', MEMBERS, ended[i].path)
    redis.call('HDEL', RESULTS, ended[i].path)
  end
  put('kept_members', redis.call('HLEN', MEMBERS))
end

-- Remove entries that were sent from the outbox: ARGV[first], ... are field, epoch and run id in turn. The entry of a
-- member that was admitted meanwhile is gone already, and its state is newer. A nested flow that was started while its
-- parent was interrupted has to be interrupted as well.
local function acknowledge(first)
  local count = 0
  for i = first, #ARGV, 3 do
    local field, epoch, run_id = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
    local flow = flow_of_run(run_id)
    local raw = redis.call('HGET', OUTBOX, field)
    if raw and cjson.decode(raw).epoch == epoch then
      redis.call('HDEL', OUTBOX, field)
      count = count + 1
      local state = state_of(field)
      if state and state.status == 'queued' and state.epoch == epoch and run_id ~= '' then
        state.status, state.run_id = flow and 'active' or 'sent', run_id
        save_state(field, state)
        set_live(field)
      end
    elseif flow then
      local state = state_of(field)
      if state and state.status == 'interrupted' and state.epoch == epoch and not state.run_id then
        state.run_id = run_id
        redis.call('HSET', MEMBERS, field, cjson.encode(state))
        redis.call('HSET', OUTBOX, action_on('interrupt', flow), cjson.encode({epoch = 0, decided_ms = NOW_MS}))
      end
    end
  end
  return count
end
