-- Library of the record scripts: starting again what was started before. A run that is gone in Hatchet is sent again,
-- and a run that had failed may be replayed there. Needs lib_record and lib_flow.
local SENDS = 3
local LOSSES = 3

local function is_user_run(path) return head.kind == 'task' and not owner_of(path) end

-- Send a member again whose run is gone: lost, Hatchet does not know it; or unscheduled, no worker took it in time.
-- False when it is not to be sent again:
--
-- - It was never admitted, and lost for the third time. An engine may take a run of a task no worker has declared and
--   answer with an id, as Hatchet does (August 2026, pkg/repository/trigger.go): that may help, but not for ever.
-- - Its body had begun and was lost four times. It may have run: sent again it runs again, as a body does whose worker
--   dies and whose run Hatchet hands to another one, which Hatchet too does three times.
-- - It found no worker for as long as a flow lives without progress.
-- - It is a user's own run and found no worker, which is for its user to know; or its input is not known.
local function resend(path, state, reason)
  local has_begun, own = state.st == 'active', is_user_run(path)
  if own and redis.call('HEXISTS', V, input_of(path)) == 0 then return false end
  local again = {n = state.n, er = state.er, ls = state.ls, lb = state.lb, rs = (state.rs or 0) + 1, tp = state.tp}
  local wait
  if has_begun then
    again.lb, again.pr = (state.lb or 0) + 1, {run = state.run, at = state.at}
    if again.lb > LOSSES then return false end
  elseif reason == 'lost' then
    again.ls = (state.ls or 0) + 1
    if again.ls >= SENDS then return false end
  end
  if reason == 'unscheduled' then
    if own and state.ep == 0 then return false end
    again.qd = state.qd or state.t
    if NOW - again.qd >= CFG.active * 1000 then return false end
    wait = math.min(CFG.check, CFG.grace * 2 ^ math.min(again.rs - 1, 16))
  end
  redis.call('ZREM', L, path)
  if not enqueue(path, state.lk, again, wait) then return false end
  facts.resent = {path = path, reason = reason, run = state.run, times = again.rs}
  local what = owner_of(path) and 'callback ' or head.kind == 'chain' and 'step ' or head.kind == 'swarm' and 'item ' or 'run '
  local why = reason == 'lost' and 'Hatchet does not know its run ' or 'no worker took its run in time, '
  note('sent again', what .. path .. ', ' .. why .. state.run)
  return true
end

-- Open a flow again whose ended member is to run once more; false when what it came to has been handed on.
local function reopen(path, state)
  if head.st == 'suspended' then
    redis.call('LREM', H, 0, held_as('ended', path))
  elseif not owner_of(path) and head.kind == 'chain' then
    if tonumber(path) ~= number('step') or (head.st ~= 'failed' and head.st ~= 'cancelled') then return false end
  elseif not owner_of(path) and head.kind == 'swarm' then
    if head.st ~= 'active' and head.st ~= 'failed' then return false end
  else
    return true
  end
  if ENDED[head.st] then
    if head.kind == 'swarm' then put('running', 0) end
    set_status('active', '', 'replayed in Hatchet: ' .. path)
    put('ended', '')
    redis.call('ZADD', T .. ':started:' .. head.kind, head.started, string.match(R, '([^:]*)$'))
    redis.call('EXPIRE', T .. ':started:' .. head.kind, CFG.active * 2)
  end
  count(path, state, -1)
  return true
end
