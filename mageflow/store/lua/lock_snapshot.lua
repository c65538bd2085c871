-- lock_snapshot: who holds what and who waits, at one instant, bounded.
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
--   limit  number   at most this many locks, and this many waiting requests
-- RESULT   JSON: now; totals {locks, waits, owners}; locks [{l, o, t, a, tp, r}]; waits [{q, o, l, n, a, tp, u}] by
--          lock and place; owners {owner: {i, p, b, until}}
-- TTL      changes nothing
-- ATOMIC   a graph put together from several instants shows cycles that never were
-- INCLUDE  lock

local limit = tonumber(ARGV[1])
local reply = {
  now = now_ms,
  totals = {
    locks = redis.call('HLEN', LOCKS),
    waits = redis.call('ZCARD', QUEUE),
    owners = redis.call('HLEN', OWNERS),
  },
  locks = {}, waits = {}, owners = {},
}

local function mention(owner_id)
  if reply.owners[owner_id] then return end
  local owner = load(OWNERS, owner_id)
  if not owner then return end
  reply.owners[owner_id] = {
    i = owner.i, p = owner.p, b = owner.b, ['until'] = tonumber(redis.call('ZSCORE', SESSIONS, owner.s) or '0'),
  }
end

local cursor = '0'
repeat
  local page = redis.call('HSCAN', LOCKS, cursor, 'COUNT', limit)
  cursor = page[1]
  for index = 1, #page[2], 2 do
    if #reply.locks < limit then
      local record = cjson.decode(page[2][index + 1])
      reply.locks[#reply.locks + 1] = { l = page[2][index], o = record.o, t = record.t, a = record.a, tp = record.tp, r = record.r }
      mention(record.o)
    end
  end
until cursor == '0' or #reply.locks >= limit

for _, member in ipairs(redis.call('ZRANGE', QUEUE, 0, limit - 1)) do
  local first = string.find(member, '\0', 1, true)
  local id = string.sub(member, first + 18)
  local wait = load(WAITS, id)
  if wait then
    reply.waits[#reply.waits + 1] = { q = id, o = wait.o, l = wait.l, n = wait.n, a = wait.a, tp = wait.tp, u = wait.u, p = wait.p }
    mention(wait.o)
  end
end
return cjson.encode(reply)
