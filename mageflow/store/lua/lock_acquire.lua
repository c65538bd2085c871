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
--   claim  JSON   o owner: "<session>/<run>", locks are re-entrant per owner; s session of the asking process; ms it
--                 lives so long from now unless renewed; open whether the caller believes it is; q unique id of the
--                 request: the same id again gets the same answer; wait whether to queue if need be, or to give up at
--                 once; p victim policy: requester, youngest, lowest_priority; b when the run began (ms), for
--                 "youngest"; pr its priority, for "lowest_priority"; i what others are shown of the owner, opaque
--                 here; tp traceparent of the span that acquires; k which wake list the caller reads; u [tokens this
--                 request keeps from being released]
--   ...    text   locks, in the order they are to be taken
-- RESULT   JSON: v granted (t tokens) | queued (l lock, n position, by holder) | deadlock (c cycle, vp policy) |
--          busy (by holder) | session_lost; with now, and reaped / resolved where something was
-- TTL      everything: a day, refreshed by renewals; fence: a week; wake: a minute
-- ATOMIC   grant, queue, edge and search are one instant: otherwise two requests could each miss the other's edge
-- INCLUDE  lock

local claim = cjson.decode(ARGV[1])
local owner_id, session, id = claim.o, claim.s, claim.q

reap()

if claim.open and not redis.call('ZSCORE', SESSIONS, session) then return finish({ v = 'session_lost' }) end
touched[SESSIONS] = true
redis.call('ZADD', SESSIONS, 'GT', now_ms + claim.ms, session)

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

if not load(OWNERS, owner_id) then
  put(MEMBERS, 0, owner_id)
  save(OWNERS, owner_id, { s = session, k = claim.k, b = claim.b, p = claim.pr, i = claim.i, h = {}, w = {} })
end

local wait = { o = owner_id, n = {}, i = 1, t = {}, u = claim.u, a = now_ms, p = claim.p, tp = claim.tp }
for index = 2, #ARGV do wait.n[#wait.n + 1] = ARGV[index] end

local lock, record = advance(id, wait)
if not lock then return finish({ v = 'granted', t = wait.t }) end
if not claim.wait then
  local holder = describe(lock, record)
  for taken = 1, wait.i - 1 do drop(wait.n[taken], id) end
  let_go(owner_id)
  return finish({ v = 'busy', l = lock, by = holder })
end
enqueue(id, wait, lock)
break_cycles(id, id)
return finish(answer())
