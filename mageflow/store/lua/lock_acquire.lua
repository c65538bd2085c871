-- lock_acquire: take one or more locks, or queue for the first that is held, and find the cycle this closes.
--
-- KEYS
--   locks     hash   held locks (this and the next seven: field tables in lib_lock)
--   owners    hash   who holds or waits
--   waits     hash   requests that had to queue
--   queue     zset   one queue per lock
--   sessions  zset   sessions of processes, and when each ends unless renewed
--   members   zset   owners of each session
--   fence     text   last token given out
--   wake      list   prefix of the lists that carry verdicts to waiting processes
-- ARGS
--   claim  JSON   owner_id "<session id>/<attempt id>", locks are re-entrant per owner; session_id of the requesting
--                 process; lease_ms the session lives from now unless renewed; session_is_open whether the process
--                 believes it lives; request_id unique, the same again gets the same answer; can_wait false: do not
--                 queue; policy, born_ms, priority, info, traceparent, wake_id, enclosing_tokens: stored (see lib_lock)
--   ...    text   locks, in the order they are to be taken
-- RESULT   JSON: verdict granted (tokens) | queued (waiting_for lock, position, holder) | deadlock (cycle, cycle_policy) |
--          busy (waiting_for, holder) | session_lost;
--          every reply: now_ms; expired [{lock, owner_id, info, held_since_ms, traceparent}] and resolved [{cycle,
--          victim_index, policy}] when there are any
-- TTL      everything: a day, refreshed by renewals; fence: a week; wake: a minute
-- ATOMIC   grant, queue, edge and search are one instant: otherwise two requests could each miss the other's edge
-- INCLUDE  lock

local claim = cjson.decode(ARGV[1])
local owner_id, session_id, request_id = claim.owner_id, claim.session_id, claim.request_id

expire()

-- Extend the session; a later end stays. Only the first request of a session may create it.
refreshed_keys[SESSIONS] = true
local session_ends_ms = now_ms + claim.lease_ms
if not claim.session_is_open then
  redis.call('ZADD', SESSIONS, 'GT', session_ends_ms, session_id)
elseif redis.call('ZADD', SESSIONS, 'XX', 'GT', 'CH', session_ends_ms, session_id) == 0
  and not redis.call('ZSCORE', SESSIONS, session_id) then
  refreshed_keys[SESSIONS] = nil
  return finish({ verdict = 'session_lost' })
end

-- Where a request with a wait record stands; nil without one.
local function answer()
  local wait = load(WAITS, request_id)
  if not wait then return nil end
  if wait.verdict == 'granted' then return { verdict = 'granted', tokens = wait.tokens } end
  if wait.verdict == 'deadlock' then
    forget_request(request_id, wait)
    return { verdict = 'deadlock', cycle = wait.cycle, cycle_policy = wait.cycle_policy }
  end
  local lock = wait.waiting_for
  local first = queue_bounds(lock)
  return {
    verdict = 'queued',
    waiting_for = lock,
    position = redis.call('ZLEXCOUNT', QUEUE, first, '[' .. queue_member(lock, wait.place, request_id)),
    holder = describe_holder(lock, load(LOCKS, lock)),
  }
end

local earlier_answer = answer()
if earlier_answer then return finish(earlier_answer) end

if not load(OWNERS, owner_id) then
  zset_add(MEMBERS, 0, owner_id)
  save(OWNERS, owner_id, {
    session_id = session_id,
    wake_id = claim.wake_id,
    born_ms = claim.born_ms,
    priority = claim.priority,
    info = claim.info,
    locks = {},
    request_ids = {},
  })
end

local wait = {
  owner_id = owner_id,
  locks = {},
  next_index = 1,
  tokens = {},
  enclosing_tokens = claim.enclosing_tokens,
  asked_ms = now_ms,
  policy = claim.policy,
  traceparent = claim.traceparent,
}
for index = 2, #ARGV do wait.locks[#wait.locks + 1] = ARGV[index] end

local held_lock, record = take_free_locks(request_id, wait)
if not held_lock then return finish({ verdict = 'granted', tokens = wait.tokens }) end
if not claim.can_wait then
  local holder = describe_holder(held_lock, record)
  for index = 1, wait.next_index - 1 do release_lock(wait.locks[index], request_id) end
  local owner = load(OWNERS, owner_id)
  if owner then save_or_delete_owner(owner_id, owner) end
  return finish({ verdict = 'busy', waiting_for = held_lock, holder = holder })
end
enqueue(request_id, wait, held_lock)
break_cycles(request_id, request_id)
return finish(answer())
