-- lib_lock: what every lock script shares: records, hand-over, the search for cycles, and the end of dead owners.
--
-- All locks of a namespace live in the same few keys, under one Cluster hash tag, because the search for a cycle
-- has to see every edge at one instant. Records are JSON; numbers that must be exact (tokens) travel as text.
--
--   locks     hash   lock -> {o owner, t token, a held since (ms), r [requests], tp traceparent}
--   owners    hash   owner -> {s session, k wake id, b born (ms), p priority, i info (opaque), h [locks], w [requests]}
--   waits     hash   request -> {o owner, n [locks], i next index, t [tokens], u [tokens it keeps from being
--                    released], a asked at (ms), p policy, tp traceparent, l lock waited for, s place in the queue,
--                    v verdict: absent while queued, else granted or deadlock, c cycle, vp policy of the verdict}
--   queue     zset   "<lock>\0<place>\0<request>", all with score 0: one first-in-first-out queue per lock
--   sessions  zset   session -> when it ends unless renewed (ms); a session is one process's claim to be alive
--   members   zset   "<session>/<run>", all with score 0: the owners of each session
--   fence     text   last token given out; never below the server's clock in microseconds, so that tokens grow
--                    even when the server has forgotten everything
--   wake      list   per process (":<wake id>" is appended): verdicts for requests that were queued
--   locks:ended  list  the last requests that were released: a driver that heard no answer releases again
--
-- Rules: a free lock has no queue (a release hands over in the same script), so nobody overtakes. A request for
-- several locks takes them in the order given, keeps what it has while it waits for the next, and is answered once.
-- A wait keeps a lease from being released when it happens inside the block that holds it (u lists those leases):
-- only such waits are edges of the wait-for graph, so sibling branches of one run make no false cycles.
-- Records are read once and written once, by `finish`: every script must return through it.

local LOCKS, OWNERS, WAITS, QUEUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local SESSIONS, MEMBERS, FENCE, WAKE = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local STATE_TTL_MS, FENCE_TTL_MS, WAKE_TTL_MS = 86400000, 604800000, 60000

local clock = redis.call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now_us / 1000)
local reaped, resolved, touched = {}, {}, {}

local records = { [LOCKS] = {}, [OWNERS] = {}, [WAITS] = {} }
local changed = { [LOCKS] = {}, [OWNERS] = {}, [WAITS] = {} }

-- The record itself, not a copy: whoever changes it saves it.
local function load(key, field)
  local record = records[key][field]
  if record == nil then
    local text = redis.call('HGET', key, field)
    record = text and cjson.decode(text) or false
    records[key][field] = record
  end
  return record or nil
end

local function save(key, field, record)
  records[key][field], changed[key][field] = record, true
end

local function erase(key, field)
  records[key][field], changed[key][field] = false, true
end

local function put(key, score, member)
  touched[key] = true
  redis.call('ZADD', key, score, member)
end

local function holds(list, item)
  for _, each in ipairs(list) do
    if each == item then return true end
  end
  return false
end

local function add(list, item)
  if not holds(list, item) then list[#list + 1] = item end
end

local function discard(list, item)
  for index, each in ipairs(list) do
    if each == item then
      table.remove(list, index)
      return true
    end
  end
  return false
end

local fence

local function next_fence()
  if not fence then fence = tonumber(redis.call('GET', FENCE) or '0') end
  fence = math.max(now_us, fence + 1)
  return string.format('%016.0f', fence)
end

local function queue_member(lock, place, id)
  return lock .. '\0' .. place .. '\0' .. id
end

local function queue_bounds(lock)
  return '[' .. lock .. '\0', '(' .. lock .. '\1'
end

-- Whatever was written to gets the same long TTL; a live session refreshes that of all with each renewal.
local function finish(reply)
  for key, fields in pairs(changed) do
    for field in pairs(fields) do
      local record = records[key][field]
      if record then
        touched[key] = true
        redis.call('HSET', key, field, cjson.encode(record))
      else
        redis.call('HDEL', key, field)
      end
    end
  end
  if fence then redis.call('SET', FENCE, string.format('%016.0f', fence), 'PX', FENCE_TTL_MS) end
  for key in pairs(touched) do redis.call('PEXPIRE', key, STATE_TTL_MS) end
  reply.now = now_ms
  if #reaped > 0 then reply.reaped = reaped end
  if #resolved > 0 then reply.resolved = resolved end
  return cjson.encode(reply)
end

-- Take a lock (h) or a request (w), if any, off an owner; one that neither holds nor asks for anything is forgotten.
local function let_go(owner_id, list, item)
  local owner = load(OWNERS, owner_id)
  if not owner then return end
  if item then discard(owner[list], item) end
  if #owner.h == 0 and #owner.w == 0 then
    erase(OWNERS, owner_id)
    redis.call('ZREM', MEMBERS, owner_id)
  else
    save(OWNERS, owner_id, owner)
  end
end

local function describe(lock, record)
  local owner = record and load(OWNERS, record.o)
  if not owner then return nil end
  return { l = lock, o = record.o, i = owner.i, a = record.a, tp = record.tp }
end

local function wake(id, wait)
  local owner = load(OWNERS, wait.o)
  if not owner then return end
  local list = WAKE .. ':' .. owner.k
  redis.call('RPUSH', list, cjson.encode({ q = id, v = wait.v, t = wait.t, c = wait.c, vp = wait.vp, now = now_ms }))
  redis.call('PEXPIRE', list, WAKE_TTL_MS)
end

-- Take as many of the request's remaining locks as are free. Returns the lock that is not, and its record.
local function advance(id, wait)
  while wait.i <= #wait.n do
    local lock = wait.n[wait.i]
    local record = load(LOCKS, lock)
    if record and record.o ~= wait.o then return lock, record end
    if record then
      add(record.r, id)
    else
      record = { o = wait.o, t = next_fence(), a = now_ms, r = { id }, tp = wait.tp }
      local owner = load(OWNERS, wait.o)
      add(owner.h, lock)
      save(OWNERS, wait.o, owner)
    end
    save(LOCKS, lock, record)
    wait.t[wait.i] = record.t
    add(wait.u, record.t)
    wait.i = wait.i + 1
  end
  return nil
end

local function enqueue(id, wait, lock)
  wait.l, wait.s = lock, next_fence()
  put(QUEUE, 0, queue_member(lock, wait.s, id))
  save(WAITS, id, wait)
  local owner = load(OWNERS, wait.o)
  add(owner.w, id)
  save(OWNERS, wait.o, owner)
end

local function dequeue(id, wait)
  if wait.s then
    redis.call('ZREM', QUEUE, queue_member(wait.l, wait.s, id))
    wait.s = nil
  end
end

-- From a queued request, follow "waits for the holder of" and "is kept from releasing by" until back at the start.
-- The graph had no cycle before this request, so a new one can only run through it. Linear in the path's length.
local function find_cycle(start)
  local path, seen = {}, {}
  local function visit(id, wait)
    local record = load(LOCKS, wait.l)
    local holder = record and load(OWNERS, record.o)
    if not holder then return false end
    path[#path + 1] = { id = id, wait = wait }
    for _, each in ipairs(holder.w) do
      if not seen[each] then
        local blocked = load(WAITS, each)
        if blocked and not blocked.v and holds(blocked.u, record.t) then
          if each == start then return true end
          seen[each] = true
          if visit(each, blocked) then return true end
        end
      end
    end
    path[#path] = nil
    return false
  end
  local wait = load(WAITS, start)
  if wait and not wait.v and visit(start, wait) then return path end
  return nil
end

local function choose_victim(path, policy)
  if policy == 'requester' then return 1 end
  local chosen, best = 1, load(OWNERS, path[1].wait.o)
  for index = 2, #path do
    local owner = load(OWNERS, path[index].wait.o)
    local younger = owner.b > best.b
    if policy == 'lowest_priority' and owner.p ~= best.p then younger = owner.p < best.p end
    if younger then chosen, best = index, owner end
  end
  return chosen
end

local hand_over

-- End one request's claim on a lock. Returns whether it had one.
local function drop(lock, id)
  local record = load(LOCKS, lock)
  if not record or not discard(record.r, id) then return false end
  if #record.r > 0 then
    save(LOCKS, lock, record)
    return true
  end
  erase(LOCKS, lock)
  let_go(record.o, 'h', lock)
  hand_over(lock)
  return true
end

-- The victim's request ends here; locks it had taken on the way are handed on, as its body never saw them. Leases
-- of its surrounding blocks are released by those blocks: their work is still being undone.
local function condemn(path, index, policy)
  local victim = path[index]
  local cycle = {}
  for place, member in ipairs(path) do
    local owner = load(OWNERS, member.wait.o)
    cycle[place] = { q = member.id, l = member.wait.l, o = member.wait.o, i = owner.i, tp = member.wait.tp }
  end
  local wait = victim.wait
  dequeue(victim.id, wait)
  wait.v, wait.c, wait.vp = 'deadlock', cycle, policy
  save(WAITS, victim.id, wait)
  resolved[#resolved + 1] = { c = cycle, x = index, p = policy }
  for taken = 1, wait.i - 1 do drop(wait.n[taken], victim.id) end
  return wait
end

-- Break every cycle that runs through a queued request. `asking` is the request whose reply this script is.
local function break_cycles(id, asking)
  while true do
    local path = find_cycle(id)
    if not path then return end
    local index = choose_victim(path, path[1].wait.p)
    local victim = path[index].id
    local wait = condemn(path, index, path[1].wait.p)
    if victim ~= asking then wake(victim, wait) end
  end
end

-- The request is first in its queue and its lock is free.
local function serve(id, wait, asking)
  local lock = advance(id, wait)
  if lock then
    enqueue(id, wait, lock)
    break_cycles(id, asking)
  else
    wait.v, wait.l = 'granted', nil
    save(WAITS, id, wait)
    wake(id, wait)
  end
end

hand_over = function(lock)
  local from, to = queue_bounds(lock)
  while true do
    local head = redis.call('ZRANGEBYLEX', QUEUE, from, to, 'LIMIT', 0, 1)[1]
    if not head then return end
    redis.call('ZREM', QUEUE, head)
    local id = string.sub(head, #lock + 19)
    local wait = load(WAITS, id)
    if wait and not wait.v then
      wait.s = nil
      serve(id, wait)
      -- Other branches of the same run that wait for this lock now hold it too.
      local owner = load(OWNERS, wait.o)
      for _, each in ipairs(owner and owner.w or {}) do
        local sibling = load(WAITS, each)
        local record = load(LOCKS, lock)
        if sibling and not sibling.v and sibling.l == lock and record and record.o == wait.o then
          dequeue(each, sibling)
          serve(each, sibling)
        end
      end
      if load(LOCKS, lock) then return end
    end
  end
end

-- Forget a request that has its answer or was given up; what it holds is dropped by the caller.
local function forget_request(id, wait)
  dequeue(id, wait)
  erase(WAITS, id)
  let_go(wait.o, 'w', id)
end

local function end_requests(owner_id)
  local owner = load(OWNERS, owner_id)
  for _, id in ipairs(owner and owner.w or {}) do
    local wait = load(WAITS, id)
    if wait then dequeue(id, wait) end
    erase(WAITS, id)
  end
  if owner then
    owner.w = {}
    save(OWNERS, owner_id, owner)
  end
end

-- Take everything from an owner whose requests have ended. Returns how many locks it held.
local function end_leases(owner_id, is_dead)
  local owner = load(OWNERS, owner_id)
  if not owner then return 0 end
  erase(OWNERS, owner_id)
  redis.call('ZREM', MEMBERS, owner_id)
  for _, lock in ipairs(owner.h) do
    local record = load(LOCKS, lock)
    if record and record.o == owner_id then
      if is_dead then
        reaped[#reaped + 1] = { l = lock, o = owner_id, i = owner.i, a = record.a, tp = record.tp }
      end
      erase(LOCKS, lock)
      hand_over(lock)
    end
  end
  return #owner.h
end

-- All requests end before any lease does, so that nothing is handed to somebody who is ending as well.
local function end_sessions(sessions, is_dead)
  local owners = {}
  for _, session in ipairs(sessions) do
    redis.call('ZREM', SESSIONS, session)
    for _, owner_id in ipairs(redis.call('ZRANGEBYLEX', MEMBERS, '[' .. session .. '/', '(' .. session .. '0')) do
      owners[#owners + 1] = owner_id
      end_requests(owner_id)
    end
  end
  for _, owner_id in ipairs(owners) do end_leases(owner_id, is_dead) end
end

-- Every script that changes anything begins by ending the sessions whose time is up, by the server's clock.
local function reap()
  local dead = redis.call('ZRANGEBYSCORE', SESSIONS, '-inf', now_ms)
  if #dead > 0 then end_sessions(dead, true) end
end
