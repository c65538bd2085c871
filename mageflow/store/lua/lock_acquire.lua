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
--   request_id        text    unique; the same id again gets the same answer
--   owner_id          text    "<session id>/<attempt id>"; locks are re-entrant per owner
--   session_id        text    session of the requesting process
--   wake_id           text    which wake list the process reads
--   session_is_open   0 or 1  whether the process believes that the session lives
--   lease_ms          number  the session lives this long from now unless renewed
--   can_wait          0 or 1  whether to queue if a lock is held
--   policy            text    victim policy: requester, youngest, lowest_priority
--   born_ms           number  when the run was enqueued, epoch ms
--   priority          number  of the run, 1 to 3
--   traceparent       text    of the span of the request; may be empty
--   info              text    JSON, what others are shown of the owner
--   enclosing_tokens  text    JSON list of the tokens of the leases whose blocks enclose the request
--   ...               text    locks, in the order they are to be taken
-- RESULT   JSON: verdict granted (tokens) | queued (waiting_for lock, position, holder) | deadlock (cycle, cycle_policy) |
--          busy (waiting_for, holder) | session_lost | ended (a release of it came first);
--          every reply: now_ms; expired [{lock, owner_id, info, held_since_ms, traceparent}] and resolved [{cycle,
--          victim_index, policy}] when there are any
-- TTL      everything: a day, refreshed by renewals; fence: a week; wake: a minute
-- ATOMIC   grant, queue, edge and search are one instant: otherwise two requests could each miss the other's edge
-- INCLUDE  lock
-- FIRST    lock_take

local request_id, owner_id, session_id, wake_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local session_is_open, lease_ms, can_wait = ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7] == '1'
local policy, born_ms, priority = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local traceparent, info, enclosing_tokens = ARGV[11], ARGV[12], ARGV[13]
local FIRST_LOCK = 14

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

local earlier_answer = answer()
if earlier_answer then return finish(earlier_answer) end
if redis.call('EXISTS', LOCKS .. ':withdrawn:' .. request_id) == 1 then return finish({ verdict = 'ended' }) end

if not load(OWNERS, owner_id) then
  zset_add(MEMBERS, 0, owner_id)
  save(OWNERS, owner_id, {
    wake_id = wake_id,
    born_ms = born_ms,
    priority = priority,
    info = info,
    locks = {},
    request_ids = {},
  })
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
return finish(answer())
