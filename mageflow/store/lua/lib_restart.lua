-- Library of the record scripts: starting again what was started before. A member whose run is gone in Hatchet is sent
-- again, and a run that had failed may be replayed there. Needs lib_paths, lib_record and lib_flow.
local MAX_SENDS_BEFORE_START = 3
local MAX_LOSSES_AFTER_START = 3

local function is_user_run(path) return header.kind == 'task' and not owner_of(path) end

-- The word for a member of this record in messages to users.
local function role_of(path)
  if owner_of(path) then return 'callback' end
  return header.kind == 'chain' and 'step' or header.kind == 'swarm' and 'item' or 'run'
end

-- Send a member again whose run is gone: lost, Hatchet does not know it; or unscheduled, no worker took it in time.
-- False when it is not to be sent again:
--
-- - It was never admitted, and lost for the third time. Hatchet may accept a run of a task that no worker has declared,
--   and answer with an id (August 2026, pkg/repository/trigger.go): sending again may help, but not forever.
-- - Its task function had started and was lost four times. It may have run. Sent again it runs again, as it does when
--   its worker dies and Hatchet hands the run to another one, which Hatchet too does three times.
-- - It found no worker for as long as a flow lives without progress.
-- - It is a user's own run and found no worker, which Hatchet reports to its user; or its input is not stored.
local function resend(path, state, reason)
  local has_begun, own = state.status == 'active', is_user_run(path)
  if own and redis.call('HEXISTS', RESULTS, input_of(path)) == 0 then return false end
  local next_state = {
    attempts = state.attempts, error = state.error, traceparent = state.traceparent, resends = (state.resends or 0) + 1,
    lost_before_start = state.lost_before_start, lost_after_start = state.lost_after_start,
    handed_ms = state.handed_ms,
  }
  local wait_ms
  if has_begun then
    next_state.lost_after_start = (state.lost_after_start or 0) + 1
    next_state.previous = {run_id = state.run_id, attempt_number = state.attempt_number}
    if next_state.lost_after_start > MAX_LOSSES_AFTER_START then return false end
  elseif reason == 'lost' then
    next_state.lost_before_start = (state.lost_before_start or 0) + 1
    if next_state.lost_before_start >= MAX_SENDS_BEFORE_START then return false end
  end
  if reason == 'unscheduled' then
    if own and state.epoch == 0 then return false end
    next_state.unscheduled_ms = state.unscheduled_ms or state.changed_ms
    if NOW_MS - next_state.unscheduled_ms >= SETTINGS.active_ttl_s * 1000 then return false end
    wait_ms = math.min(SETTINGS.check_ms, SETTINGS.grace_ms * 2 ^ math.min(next_state.resends - 1, 16))
  end
  redis.call('ZREM', LIVE, path)
  if not dispatch(path, state.link, next_state, wait_ms) then return false end
  facts.resent = {path = path, reason = reason, run_id = state.run_id, times = next_state.resends}
  local why = reason == 'lost' and 'Hatchet does not know its run ' or 'no worker took its run in time, '
  note('sent again', role_of(path) .. ' ' .. path .. ', ' .. why .. state.run_id)
  return true
end

-- Open a flow again whose ended member runs once more; false when its result or its end was handed on already.
local function reopen(path, state)
  if header.status == 'suspended' then
    unhold('ended', path)
  elseif not owner_of(path) and header.kind == 'chain' then
    if tonumber(path) ~= number('step') or (header.status ~= 'failed' and header.status ~= 'cancelled') then
      return false
    end
  elseif not owner_of(path) and header.kind == 'swarm' then
    if header.status ~= 'active' and header.status ~= 'failed' then return false end
  else
    return true
  end
  if ENDED[header.status] then
    if header.kind == 'swarm' then put('running', 0) end
    set_status('active', '', 'replayed in Hatchet: ' .. path)
    clear('ended_ms')
    set_started(header.started_ms)
  end
  count_end(path, state, -1)
  return true
end
