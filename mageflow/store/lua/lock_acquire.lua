-- lock_acquire: take one or more locks, or queue for the first that is held, and find the cycle that closes.
--
-- KEYS
--   locks     hash   who holds what (this and the next seven: see lib_lock)
--   owners    hash   runs that hold or ask
--   waits     hash   requests that had to queue
--   queue     zset   one queue per lock
--   sessions  zset   processes and when they end unless renewed
--   members   zset   owners of each session
--   fence     text   last token given out
--   wake      list   prefix of the lists that carry verdicts to waiting processes
-- ARGS
--   owner        text   "<session>/<run>": locks are re-entrant per owner
--   session      text   the asking process's session
--   lease_ms     number the session lives this long from now unless renewed
--   is_open      0|1    whether the caller believes its session is open
--   request      text   unique id; the same id again gets the same answer
--   mode         text   wait (queue if need be) or try (give up at once)
--   policy       text   victim policy: requester, youngest, lowest_priority
--   born_ms      number when the run began, for "youngest"
--   priority     number the run's priority, for "lowest_priority"
--   info         text   what others are shown of the owner; opaque here
--   traceparent  text   of the span that acquires
--   wake_id      text   which wake list the caller reads
--   under        text   JSON list of tokens this request keeps from being released
--   ...          text   locks, in the order they are to be taken
-- RESULT   JSON: v granted (t tokens) | queued (l lock, n position, by holder) | deadlock (c cycle, vp policy) |
--          busy (by holder) | session_lost; with now, and reaped / resolved where something was
-- TTL      everything: a day, refreshed by renewals; fence: a week; wake: a minute
-- ATOMIC   grant, queue, edge and search are one instant: otherwise two requests could each miss the other's edge
-- INCLUDE  lock

local owner_id, session, lease_ms, is_open, id, mode = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]

reap()

if is_open == '1' and not redis.call('ZSCORE', SESSIONS, session) then return finish({ v = 'session_lost' }) end
touched[SESSIONS] = true
redis.call('ZADD', SESSIONS, 'GT', now_ms + lease_ms, session)

local function answer()
  local wait = load(WAITS, id)
  if not wait then return nil end
  if wait.v == 'granted' then return { v = 'granted', t = wait.t } end
  if wait.v == 'deadlock' then
    forget_request(id, wait)
    return { v = 'deadlock', c = wait.c, vp = wait.vp }
  end
  local from = queue_bounds(wait.l)
  local position = redis.call('ZLEXCOUNT', QUEUE, from, '[' .. queue_member(wait.l, wait.s, id))
  return { v = 'queued', l = wait.l, n = position, by = describe(wait.l, load(LOCKS, wait.l)) }
end

local known = answer()
if known then return finish(known) end

if redis.call('HEXISTS', OWNERS, owner_id) == 0 then
  put(MEMBERS, 0, owner_id)
  save(OWNERS, owner_id, {
    s = session, k = ARGV[12], b = tonumber(ARGV[8]), p = tonumber(ARGV[9]), i = ARGV[10], h = {}, w = {},
  })
end

local wait = { o = owner_id, n = {}, i = 1, t = {}, u = cjson.decode(ARGV[13]), a = now_ms, p = ARGV[7], tp = ARGV[11] }
for index = 14, #ARGV do wait.n[#wait.n + 1] = ARGV[index] end

local lock, record = advance(id, wait)
if not lock then return finish({ v = 'granted', t = wait.t }) end
if mode == 'try' then
  local holder = describe(lock, record)
  for taken = 1, wait.i - 1 do drop(wait.n[taken], id) end
  let_go(owner_id)
  return finish({ v = 'busy', l = lock, by = holder })
end
enqueue(id, wait, lock)
break_cycles(id, id)
return finish(answer())
