-- lock_renew: keep a process's session alive, check its leases, tell its waiting requests where they stand.
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
--   session   text   the session to renew
--   lease_ms  number it lives this long from now
--   leases    text   JSON list of [lock, token] the process believes to hold
--   requests  text   JSON list of requests it believes to wait
--   known     text   JSON list of the requests behind the leases
-- RESULT   JSON: v renewed | lost (the session had ended: so have its leases and requests); gone [tokens no longer
--          held], waits {request: {v queued (l lock, by holder) | granted (t) | deadlock (c, vp) | gone}};
--          strange {request: [locks]}: what the session holds or asks for and the process did not name;
--          with now, and reaped / resolved where something was
-- TTL      as lock_acquire
-- ATOMIC   a session may only be prolonged when nobody has taken its leases, decided at the same instant
-- INCLUDE  lock

local session = ARGV[1]

reap()

if not redis.call('ZSCORE', SESSIONS, session) then return finish({ v = 'lost' }) end
put(SESSIONS, now_ms + tonumber(ARGV[2]), session)
for index = 1, 6 do touched[KEYS[index]] = true end

local reply = { v = 'renewed', gone = {}, waits = {} }
for _, lease in ipairs(cjson.decode(ARGV[3])) do
  local record = load(LOCKS, lease[1])
  if not record or record.t ~= lease[2] then reply.gone[#reply.gone + 1] = lease[2] end
end
-- The search is repeated as a second line of defence: a server that forgot a moment of its past (a failover) may
-- have woken up with a cycle that no request closed.
for _, id in ipairs(cjson.decode(ARGV[4])) do
  break_cycles(id)
  local wait = load(WAITS, id)
  if not wait then
    reply.waits[id] = { v = 'gone' }
  elseif wait.v then
    reply.waits[id] = { v = wait.v, t = wait.t, c = wait.c, vp = wait.vp }
  else
    reply.waits[id] = { v = 'queued', l = wait.l, by = describe(wait.l, load(LOCKS, wait.l)) }
  end
end

-- An acquire whose answer was lost may be executed after its release was: only the process can tell that from one it
-- has sent since.
local known, strange = {}, {}
for _, text in ipairs({ ARGV[4], ARGV[5] }) do
  for _, id in ipairs(cjson.decode(text)) do known[id] = true end
end
for _, owner_id in ipairs(redis.call('ZRANGEBYLEX', MEMBERS, '[' .. session .. '/', '(' .. session .. '0')) do
  local owner = load(OWNERS, owner_id)
  for _, id in ipairs(owner and owner.w or {}) do
    if not known[id] then strange[id] = strange[id] or {} end
  end
  for _, lock in ipairs(owner and owner.h or {}) do
    local record = load(LOCKS, lock)
    for _, id in ipairs(record and record.r or {}) do
      if not known[id] then
        strange[id] = strange[id] or {}
        add(strange[id], lock)
      end
    end
  end
end
if next(strange) then reply.strange = strange end
return finish(reply)
