-- lock_acquire: take one or more locks, or queue for the first that is held, and find the cycle this closes.
--
-- KEYS
--   locks   hash   held locks; the others get their names from it (lib_lock_keys, fields in lib_lock)
-- ARGS
--   request_id  text   unique; the same id again gets the same answer
--   owner_id    text   "<session id>/<attempt id>"; locks are re-entrant per owner
--   terms       text   five words: whether the process believes that the session lives (0 or 1); whether to queue if a
--                      lock is held (0 or 1); for how many ms the session lives from now unless renewed; victim policy
--                      (requester, youngest, lowest_priority); JSON list of the tokens of the leases whose blocks
--                      enclose the request, without spaces
--   lock        JSON   the record of a lock, for the first of them, without its token, its time and its last brace
--   owner       JSON   the record of the owner once it has that lock and nothing else
--   ...         text   locks, in the order they are to be taken
-- RESULT   text "granted <token>" of one free lock; else JSON: verdict granted (tokens) | queued (waiting_for lock, position, holder) | deadlock (cycle, cycle_policy) |
--          busy (waiting_for, holder) | session_lost | ended (a release of it came first);
--          every JSON: now_ms; expired [{lock, owner_id, info, held_since_ms, traceparent}] and resolved [{cycle,
--          victim_index, policy}] when there are any
-- TTL      everything: a day, refreshed by renewals; fence: a week; wake: a minute
-- ATOMIC   grant, queue, edge and search are one instant: otherwise two requests could each miss the other's edge
-- INCLUDE  lock
-- FIRST    lock_take lock_keys

local FIRST_LOCK = 6
local request_id, owner_id, new_owner = ARGV[1], ARGV[2], cjson.decode(ARGV[5])
local traceparent = cjson.decode(ARGV[4] .. '}').traceparent
local session_id = string.match(owner_id, '^[^/]*')
local session_is_open, can_wait, lease_ms, policy, enclosing_tokens =
  string.match(ARGV[3], '^(%d) (%d) (%d+) (%S+) (%S+)$')
session_is_open, can_wait, lease_ms = session_is_open == '1', can_wait == '1', tonumber(lease_ms)

expire()

-- Extend the session; a later end stays. Only the first request of a session may create it.
refreshed_keys[SESSIONS] = true
local session_ends_ms = now_ms + lease_ms
if not session_is_open then
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
    holder = describe(lock, load(LOCKS, lock)),
  }
end

-- A driver repeats a call when it misses the answer, and with it what the call has resolved.
local earlier = load(WAITS, request_id)
report_resolved(earlier)
local earlier_answer = answer()
if earlier_answer then return finish(earlier_answer) end
-- A request, or a copy of it that a driver has sent, may be read after its release. Nothing would release its locks.
if redis.pcall('HGET', LATE, string.sub(request_id, 1, 3)) == request_id
  or redis.call('EXISTS', LOCKS .. ':withdrawn:' .. request_id) == 1 then
  return finish({ verdict = 'ended' })
end

if not load(OWNERS, owner_id) then
  zset_add(MEMBERS, 0, owner_id)
  new_owner.locks = {}
  save(OWNERS, owner_id, new_owner)
end

local wait = {
  owner_id = owner_id,
  locks = {},
  next_index = 1,
  tokens = {},
  enclosing_tokens = cjson.decode(enclosing_tokens),
  asked_ms = now_ms,
  policy = policy,
  traceparent = traceparent,
}
for index = FIRST_LOCK, #ARGV do wait.locks[#wait.locks + 1] = ARGV[index] end

local held_lock, record = take_free_locks(request_id, wait)
if not held_lock then return finish({ verdict = 'granted', tokens = wait.tokens }) end
if not can_wait then
  local holder = describe(held_lock, record)
  for index = 1, wait.next_index - 1 do release_lock(wait.locks[index], request_id) end
  remove_from_owner(owner_id, 'request_ids', request_id)
  return finish({ verdict = 'busy', waiting_for = held_lock, holder = holder })
end
enqueue(request_id, wait, held_lock)
break_cycles(request_id, request_id)
local own = load(WAITS, request_id)
if #resolved > 0 and own then
  own.resolved = resolved
  save(WAITS, request_id, own)
end
return finish(answer())
