-- lock_renew: keep a process's session alive, check its leases, report where its waiting requests stand.
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
--   session_id  text    the session to renew
--   lease_ms    number  it lives this long from now
--   leases      text    JSON list of [lock, token]: what the process believes to hold
--   waiting     text    JSON list of the requests it believes to wait
--   granted     text    JSON list of the requests behind its leases
-- RESULT   JSON: verdict renewed | lost (the session had ended, and its leases and requests with it);
--          gone_tokens [tokens that are no longer held];
--          waits {request id: {verdict queued (waiting_for, holder) | granted (tokens) | deadlock (cycle, cycle_policy) | gone}};
--          unknown_requests {request id: [locks]} when there are any: what the session holds or waits for and the process
--          did not name;
--          every reply: now_ms; expired [{lock, owner_id, info, held_since_ms, traceparent}] and resolved [{cycle,
--          victim_index, policy}] when there are any
-- TTL      as lock_acquire
-- ATOMIC   a session may only be renewed while its leases are still its own, decided at the same instant
-- INCLUDE  lock

local session_id, lease_ms = ARGV[1], tonumber(ARGV[2])
local leases, waiting, granted = cjson.decode(ARGV[3]), cjson.decode(ARGV[4]), cjson.decode(ARGV[5])

expire()

if not redis.call('ZSCORE', SESSIONS, session_id) then return finish({ verdict = 'lost' }) end
zset_add(SESSIONS, now_ms + lease_ms, session_id)
for index = 1, 6 do refreshed_keys[KEYS[index]] = true end

local reply = { verdict = 'renewed', gone_tokens = {}, waits = {} }
for _, lease in ipairs(leases) do
  local lock, token = lease[1], lease[2]
  local record = load(LOCKS, lock)
  if not record or record.token ~= token then reply.gone_tokens[#reply.gone_tokens + 1] = token end
end
-- The search is repeated as a second line of defence: a server that lost its last moments (a failover) may come back
-- with a cycle that no request closed.
for _, request_id in ipairs(waiting) do
  break_cycles(request_id)
  local wait = load(WAITS, request_id)
  if not wait then
    reply.waits[request_id] = { verdict = 'gone' }
  elseif wait.verdict then
    reply.waits[request_id] = {
      verdict = wait.verdict, tokens = wait.tokens, cycle = wait.cycle, cycle_policy = wait.cycle_policy,
    }
  else
    local lock = wait.waiting_for
    reply.waits[request_id] = { verdict = 'queued', waiting_for = lock, holder = describe(lock, load(LOCKS, lock)) }
  end
end

-- An acquire whose answer was lost may be executed after its release. Only the process can distinguish such a
-- request from one it has sent since, so it decides.
local known, unknown = {}, {}
for _, request_ids in ipairs({ waiting, granted }) do
  for _, request_id in ipairs(request_ids) do known[request_id] = true end
end
for _, owner_id in ipairs(owners_of(session_id)) do
  local owner = load(OWNERS, owner_id)
  for _, request_id in ipairs(owner and owner.request_ids or {}) do
    if not known[request_id] then unknown[request_id] = unknown[request_id] or {} end
  end
  for _, lock in ipairs(owner and owner.locks or {}) do
    local record = load(LOCKS, lock)
    for _, request_id in ipairs(record and record.request_ids or {}) do
      if not known[request_id] then
        unknown[request_id] = unknown[request_id] or {}
        add_once(unknown[request_id], lock)
      end
    end
  end
end
if next(unknown) then reply.unknown_requests = unknown end
return finish(reply)
