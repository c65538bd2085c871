-- Library of the lock scripts: records, hand-over, the search for cycles, and the end of owners whose lease ran out.
--
-- All locks of a namespace live in the same few keys, under one Cluster hash tag, because the search for a cycle
-- must see every edge at one instant. Records are JSON. A token is text of 16 digits, because a number in Lua's JSON is
-- not exact enough. docs/storage-locks.md says more of each field and when it goes; a test compares it with this table.
--
-- FIELD                 TYPE       WRITTEN BY       MEANING
--   locks               hash                        lock -> lock record; a free lock has no record
--     owner_id          text       grant            the holder: "<session id>/<attempt id>"
--     token             token      grant            fencing token
--     held_since_ms     epoch ms   grant            when it was granted
--     request_ids       [text]     grant, release   requests that share it; the last release deletes the record
--     traceparent       text       grant            span of the request that acquired it; may be empty
--   owners              hash                        owner id -> owner record; only owners that hold or wait
--     wake_id           text       acquire          which wake list its process reads
--     born_ms           epoch ms   acquire          when the run was enqueued; the policy "youngest" compares it
--     priority          number     acquire          1 to 3, from Hatchet; the policy "lowest_priority" compares it
--     info              JSON text  acquire          what others are shown (LockOwner.to_json); not read here
--     locks             [lock]     grant, release   what it holds
--     request_ids       [text]     queue            its requests that have a wait record
--   waits               hash                        request id -> wait record; only requests that had to queue
--     owner_id          text       queue            who waits
--     locks             [lock]     queue            what it wants, in the order it takes them
--     next_index        number     queue, grant     place in `locks` of the next one to take, from 1
--     tokens            [token]    queue, grant     tokens of those it has taken
--     enclosing_tokens  [token]    queue, grant     leases that cannot be released before this wait ends: those whose
--                                                   blocks enclose the request, and those it has taken itself
--     asked_ms          epoch ms   queue            when it was queued
--     policy            text       queue            victim policy: requester, youngest, lowest_priority
--     traceparent       text       queue            span of the request; may be empty
--     waiting_for       lock       queue            the lock it waits for; absent once granted
--     place             token      queue            its place in that queue; absent when in no queue
--     verdict           text       grant, deadlock  absent while queued, then granted or deadlock
--     cycle             [member]   deadlock         per member: request_id, lock, owner_id, info, traceparent
--     cycle_policy      text       deadlock         policy of the request that closed the cycle
--     resolved          [cycle]    deadlock         deadlocks that were resolved when it was queued: cycle, victim_index,
--                                                   policy
--   queue               zset       queue            "<lock>\0<place>\0<request id>", score 0: first in, first out
--   sessions            zset       acquire, renew   session id -> epoch ms at which it ends unless renewed
--   members             zset       acquire          owner ids, score 0: the owners of each session
--   fence               token      grant, queue     last token given out; at least the clock in microseconds
--   wake:<wake id>      list       grant, deadlock  verdicts for one process, as JSON: request_id, verdict, tokens,
--                                                   cycle, cycle_policy, now_ms
--   locks:ended         list       release          last requests released: a repeated release gets the same answer
--   locks:late          hash       release          first 3 characters of a request id -> the last such request that was
--                                                   released: a copy of it that comes late is granted nothing
--   locks:withdrawn:<request id>  text  release     a request whose release came first: it is granted nothing
--
-- Rules: a free lock has no queue (a release hands it over in the same script), so no request overtakes another. A
-- request for several locks takes them in the order given, keeps what it has while it waits for the next, and is
-- answered once. Only waits inside a lease's own block are edges of the wait-for graph (enclosing_tokens), so that
-- parallel branches of one attempt make no false cycles. Records are read once and written once, by `finish`: every
-- script that changes something must return through it.

local LOCKS, OWNERS, WAITS, QUEUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local SESSIONS, MEMBERS, FENCE, WAKE = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local STATE_TTL_MS, FENCE_TTL_MS, WAKE_TTL_MS = 86400000, 604800000, 60000
local TOKEN_DIGITS = 16

local clock = redis.call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now_us / 1000)

local records = { [LOCKS] = {}, [OWNERS] = {}, [WAITS] = {} }
local changed = { [LOCKS] = {}, [OWNERS] = {}, [WAITS] = {} }
local refreshed_keys = {}
local expired, resolved = {}, {}

-- -- records ---------------------------------------------------------------------------------------------------------

-- Returns the record itself, not a copy: a caller that changes it must save it.
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

local function delete(key, field)
  records[key][field], changed[key][field] = false, true
end

local function zset_add(key, score, member)
  refreshed_keys[key] = true
  redis.call('ZADD', key, score, member)
end

local function contains(list, item)
  for _, each in ipairs(list) do
    if each == item then return true end
  end
  return false
end

local function add_once(list, item)
  if not contains(list, item) then list[#list + 1] = item end
end

local function remove(list, item)
  for index, each in ipairs(list) do
    if each == item then
      table.remove(list, index)
      return true
    end
  end
  return false
end

local last_number, last_token

local function next_token()
  last_number = math.max(now_us, (last_number or tonumber(redis.call('GET', FENCE) or '0')) + 1)
  -- In two halves, as '%d' costs a tenth of '%.0f' and takes no more than 32 bits on some servers.
  local high = math.floor(last_number / 100000000)
  last_token = string.format('%08d%08d', high, last_number - high * 100000000)
  return last_token
end

-- Write every changed record. All written keys get the same long TTL; each renewal of a live session refreshes it.
local function finish(reply)
  for key, fields in pairs(changed) do
    for field in pairs(fields) do
      local record = records[key][field]
      if record then
        refreshed_keys[key] = true
        redis.call('HSET', key, field, cjson.encode(record))
      else
        redis.call('HDEL', key, field)
      end
    end
  end
  if last_token then redis.call('SET', FENCE, last_token, 'PX', FENCE_TTL_MS) end
  for key in pairs(refreshed_keys) do redis.call('PEXPIRE', key, STATE_TTL_MS) end
  reply.now_ms = now_ms
  if #expired > 0 then reply.expired = expired end
  if #resolved > 0 then reply.resolved = resolved end
  return cjson.encode(reply)
end

-- -- owners and requests ---------------------------------------------------------------------------------------------

-- Remove an item from one of an owner's lists (`locks` or `request_ids`). An owner with two empty lists is deleted.
local function remove_from_owner(owner_id, list_name, item)
  local owner = load(OWNERS, owner_id)
  if not owner then return end
  remove(owner[list_name], item)
  if #owner.locks == 0 and #owner.request_ids == 0 then
    delete(OWNERS, owner_id)
    redis.call('ZREM', MEMBERS, owner_id)
  else
    save(OWNERS, owner_id, owner)
  end
end

-- How a reply describes a held lock and its holder; nil when the lock is free.
local function describe(lock, record)
  local owner = record and load(OWNERS, record.owner_id)
  return owner and {
    lock = lock,
    owner_id = record.owner_id,
    info = owner.info,
    held_since_ms = record.held_since_ms,
    traceparent = record.traceparent,
  }
end

-- Push a request's verdict to the wake list of its process.
local function send_verdict(request_id, wait)
  local owner = load(OWNERS, wait.owner_id)
  if not owner then return end
  local wake_list = WAKE .. ':' .. owner.wake_id
  redis.call('RPUSH', wake_list, cjson.encode({
    request_id = request_id,
    verdict = wait.verdict,
    tokens = wait.tokens,
    cycle = wait.cycle,
    cycle_policy = wait.cycle_policy,
    now_ms = now_ms,
  }))
  redis.call('PEXPIRE', wake_list, WAKE_TTL_MS)
end

-- Take as many of the request's remaining locks as are free. Returns the first that is held, and its record.
local function take_free_locks(request_id, wait)
  while wait.next_index <= #wait.locks do
    local lock = wait.locks[wait.next_index]
    local record = load(LOCKS, lock)
    if record and record.owner_id ~= wait.owner_id then return lock, record end
    if record then
      add_once(record.request_ids, request_id)
    else
      record = {
        owner_id = wait.owner_id,
        token = next_token(),
        held_since_ms = now_ms,
        request_ids = { request_id },
        traceparent = wait.traceparent,
      }
      local owner = load(OWNERS, wait.owner_id)
      add_once(owner.locks, lock)
      save(OWNERS, wait.owner_id, owner)
    end
    save(LOCKS, lock, record)
    wait.tokens[wait.next_index] = record.token
    add_once(wait.enclosing_tokens, record.token)
    wait.next_index = wait.next_index + 1
  end
  return nil
end

-- -- queues ----------------------------------------------------------------------------------------------------------

local function queue_member(lock, place, request_id)
  return lock .. '\0' .. place .. '\0' .. request_id
end

local function queue_bounds(lock)
  return '[' .. lock .. '\0', '(' .. lock .. '\1'
end

-- The request id in a queue member whose lock name has this length.
local function queued_request(member, lock_length)
  return string.sub(member, lock_length + TOKEN_DIGITS + 3)
end

local function enqueue(request_id, wait, lock)
  wait.waiting_for, wait.place = lock, next_token()
  zset_add(QUEUE, 0, queue_member(lock, wait.place, request_id))
  save(WAITS, request_id, wait)
  local owner = load(OWNERS, wait.owner_id)
  add_once(owner.request_ids, request_id)
  save(OWNERS, wait.owner_id, owner)
end

local function dequeue(request_id, wait)
  if wait.place then
    redis.call('ZREM', QUEUE, queue_member(wait.waiting_for, wait.place, request_id))
    wait.place = nil
  end
end

-- -- deadlocks -------------------------------------------------------------------------------------------------------

-- From a queued request, follow "waits for the holder of" and "keeps it from releasing" until back at the start. The
-- graph had no cycle before this request, so a new one must run through it. Linear in the number of edges reached.
local function find_cycle(start)
  local path, seen = {}, {}
  local function visit(request_id, wait)
    local record = load(LOCKS, wait.waiting_for)
    local holder = record and load(OWNERS, record.owner_id)
    if not holder then return false end
    path[#path + 1] = { request_id = request_id, wait = wait }
    for _, next_request_id in ipairs(holder.request_ids) do
      if not seen[next_request_id] then
        local next_wait = load(WAITS, next_request_id)
        if next_wait and not next_wait.verdict and contains(next_wait.enclosing_tokens, record.token) then
          if next_request_id == start then return true end
          seen[next_request_id] = true
          if visit(next_request_id, next_wait) then return true end
        end
      end
    end
    path[#path] = nil
    return false
  end
  local wait = load(WAITS, start)
  if wait and not wait.verdict and visit(start, wait) then return path end
  return nil
end

-- Returns the victim's index in the path. The path begins with the request that closed the cycle.
local function choose_victim(path, policy)
  if policy == 'requester' then return 1 end
  local chosen_index, chosen = 1, load(OWNERS, path[1].wait.owner_id)
  for index = 2, #path do
    local owner = load(OWNERS, path[index].wait.owner_id)
    local is_better = owner.born_ms > chosen.born_ms
    if policy == 'lowest_priority' and owner.priority ~= chosen.priority then
      is_better = owner.priority < chosen.priority
    end
    if is_better then chosen_index, chosen = index, owner end
  end
  return chosen_index
end

local hand_over

-- End one request's share of a lock; the last share frees it. Returns whether the request had one.
local function release_lock(lock, request_id)
  local record = load(LOCKS, lock)
  if not record or not remove(record.request_ids, request_id) then return false end
  if #record.request_ids > 0 then
    save(LOCKS, lock, record)
    return true
  end
  delete(LOCKS, lock)
  remove_from_owner(record.owner_id, 'locks', lock)
  hand_over(lock)
  return true
end

-- End the victim's request. Locks it took on the way are handed on, because its body never saw them. Locks of its
-- enclosing blocks stay: those blocks release them, as the work under them is still being undone.
local function abort_victim(path, victim_index, policy)
  local victim = path[victim_index]
  local cycle = {}
  for index, member in ipairs(path) do
    cycle[index] = {
      request_id = member.request_id,
      lock = member.wait.waiting_for,
      owner_id = member.wait.owner_id,
      info = load(OWNERS, member.wait.owner_id).info,
      traceparent = member.wait.traceparent,
    }
  end
  local wait = victim.wait
  dequeue(victim.request_id, wait)
  wait.verdict, wait.cycle, wait.cycle_policy = 'deadlock', cycle, policy
  save(WAITS, victim.request_id, wait)
  resolved[#resolved + 1] = { cycle = cycle, victim_index = victim_index, policy = policy }
  for index = 1, wait.next_index - 1 do release_lock(wait.locks[index], victim.request_id) end
  return wait
end

-- Report again what was resolved when a request was queued: its caller has no answer to that call.
local function report_resolved(wait)
  for _, each in ipairs(wait and wait.resolved or {}) do resolved[#resolved + 1] = each end
end

-- Break every cycle that runs through a queued request. The caller of this script gets the verdict on
-- `answered_request` as the script's reply, so none is pushed for it.
local function break_cycles(request_id, answered_request_id)
  while true do
    local path = find_cycle(request_id)
    if not path then return end
    local policy = path[1].wait.policy
    local victim_index = choose_victim(path, policy)
    local victim = path[victim_index].request_id
    local wait = abort_victim(path, victim_index, policy)
    if victim ~= answered_request_id then send_verdict(victim, wait) end
  end
end

-- -- hand-over -------------------------------------------------------------------------------------------------------

-- Continue a request whose awaited lock is free: it is granted, or queues for the next lock it wants.
local function continue_request(request_id, wait)
  local held_lock = take_free_locks(request_id, wait)
  if held_lock then
    enqueue(request_id, wait, held_lock)
    break_cycles(request_id)
  else
    wait.verdict, wait.waiting_for = 'granted', nil
    save(WAITS, request_id, wait)
    send_verdict(request_id, wait)
  end
end

-- Give a free lock to the first in its queue.
hand_over = function(lock)
  local first, last = queue_bounds(lock)
  while true do
    local member = redis.call('ZRANGEBYLEX', QUEUE, first, last, 'LIMIT', 0, 1)[1]
    if not member then return end
    redis.call('ZREM', QUEUE, member)
    local request_id = queued_request(member, #lock)
    local wait = load(WAITS, request_id)
    if wait and not wait.verdict then
      wait.place = nil
      continue_request(request_id, wait)
      -- Other branches of the same attempt that wait for this lock now hold it too.
      local owner = load(OWNERS, wait.owner_id)
      for _, sibling_id in ipairs(owner and owner.request_ids or {}) do
        local sibling = load(WAITS, sibling_id)
        local record = load(LOCKS, lock)
        local is_waiting = sibling and not sibling.verdict and sibling.waiting_for == lock
        if is_waiting and record and record.owner_id == wait.owner_id then
          dequeue(sibling_id, sibling)
          continue_request(sibling_id, sibling)
        end
      end
      if load(LOCKS, lock) then return end
    end
  end
end

-- -- the end of requests, owners and sessions ------------------------------------------------------------------------

-- Delete a request that has its answer or was given up; the caller releases what it holds.
local function forget_request(request_id, wait)
  dequeue(request_id, wait)
  delete(WAITS, request_id)
  remove_from_owner(wait.owner_id, 'request_ids', request_id)
end

local ENDED, LATE, ENDED_KEPT, ENDED_TTL_MS = LOCKS .. ':ended', LOCKS .. ':late', 1000, 60000

-- Remember that a request has released all its locks. A list of another type is made anew: it would keep locks from
-- being released. The hash has at most 4096 fields, as request ids are hexadecimal, and is of use in most cases only, so
-- nothing fails without it.
local function note_released(request_id)
  local count = redis.pcall('LPUSH', ENDED, request_id)
  if type(count) == 'table' then
    if not string.find(count.err, 'WRONGTYPE', 1, true) then error(count) end
    redis.call('DEL', ENDED)
    redis.call('LPUSH', ENDED, request_id)
  elseif count > 2 * ENDED_KEPT then
    redis.call('LTRIM', ENDED, 0, ENDED_KEPT - 1)
  end
  redis.call('PEXPIRE', ENDED, ENDED_TTL_MS)
  redis.pcall('HSET', LATE, string.sub(request_id, 1, 3), request_id)
  redis.pcall('PEXPIRE', LATE, ENDED_TTL_MS)
end

local function end_requests(owner_id)
  local owner = load(OWNERS, owner_id)
  if not owner then return end
  for _, request_id in ipairs(owner.request_ids) do
    local wait = load(WAITS, request_id)
    if wait then dequeue(request_id, wait) end
    delete(WAITS, request_id)
  end
  owner.request_ids = {}
  save(OWNERS, owner_id, owner)
end

-- Take all locks from an owner whose requests have ended. Returns how many it held.
local function end_leases(owner_id, has_expired)
  local owner = load(OWNERS, owner_id)
  if not owner then return 0 end
  for _, lock in ipairs(owner.locks) do
    local record = load(LOCKS, lock)
    if record and record.owner_id == owner_id then
      if has_expired then expired[#expired + 1] = describe(lock, record) end
      delete(LOCKS, lock)
      hand_over(lock)
    end
  end
  delete(OWNERS, owner_id)
  redis.call('ZREM', MEMBERS, owner_id)
  return #owner.locks
end

local function owners_of(session_id)
  return redis.call('ZRANGEBYLEX', MEMBERS, '[' .. session_id .. '/', '(' .. session_id .. '0')
end

-- All requests end before any lease does, so that no lock is handed to an owner that is ending as well.
local function end_sessions(session_ids, has_expired)
  local owner_ids = {}
  for _, session_id in ipairs(session_ids) do
    redis.call('ZREM', SESSIONS, session_id)
    for _, owner_id in ipairs(owners_of(session_id)) do
      owner_ids[#owner_ids + 1] = owner_id
      end_requests(owner_id)
    end
  end
  for _, owner_id in ipairs(owner_ids) do end_leases(owner_id, has_expired) end
end

-- A key of another type ends the script here, before its first write. Later it would keep the writes before that key.
local function check_types()
  for _, key in ipairs({ LOCKS, OWNERS, WAITS }) do redis.call('HGET', key, '') end
  for _, key in ipairs({ QUEUE, SESSIONS, MEMBERS }) do redis.call('ZSCORE', key, '') end
  redis.call('GET', FENCE)
end

-- End the sessions whose time is up, by the server's clock. Every script that changes something begins with it.
local function expire()
  check_types()
  local session_ids = redis.call('ZRANGEBYSCORE', SESSIONS, '-inf', now_ms)
  if #session_ids > 0 then end_sessions(session_ids, true) end
end
