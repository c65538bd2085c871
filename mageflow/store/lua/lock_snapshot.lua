-- lock_snapshot: who holds what and who waits, at one instant, bounded.
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
--   limit  number   at most this many locks, and this many waiting requests
-- RESULT   JSON: now_ms; totals {locks, waits, owners}; locks [{lock, owner_id, token, held_since_ms}];
--          waits [{request_id, owner_id, waiting_for, locks, asked_ms, enclosing_tokens}] by lock and place;
--          owners {owner id: {info, session_ends_ms}}
-- TTL      changes nothing
-- ATOMIC   a graph put together from several instants shows cycles that never were
-- INCLUDE  lock

local limit = tonumber(ARGV[1])
local reply = {
  now_ms = now_ms,
  totals = {
    locks = redis.call('HLEN', LOCKS),
    waits = redis.call('ZCARD', QUEUE),
    owners = redis.call('HLEN', OWNERS),
  },
  locks = {}, waits = {}, owners = {},
}

-- A record that cannot be read is left out: it hides no other. The totals count it.
local function readable(read, ...)
  local is_readable, record = pcall(read, ...)
  return is_readable and type(record) == 'table' and type(record.owner_id) == 'string' and record or nil
end

local function add_owner(owner_id)
  if reply.owners[owner_id] then return end
  local is_readable, owner = pcall(load, OWNERS, owner_id)
  if not is_readable or type(owner) ~= 'table' then return end
  local session_id = string.match(owner_id, '^[^/]*')
  reply.owners[owner_id] = {
    info = owner.info,
    session_ends_ms = tonumber(redis.call('ZSCORE', SESSIONS, session_id) or '0'),
  }
end

local cursor = '0'
repeat
  local page = redis.call('HSCAN', LOCKS, cursor, 'COUNT', limit)
  local fields = page[2]
  cursor = page[1]
  for index = 1, #fields, 2 do
    if #reply.locks < limit then
      local lock, record = fields[index], readable(cjson.decode, fields[index + 1])
      if record and string.find(tostring(record.token), '^%d+$') and tonumber(record.held_since_ms) then
        reply.locks[#reply.locks + 1] = {
          lock = lock,
          owner_id = record.owner_id,
          token = record.token,
          held_since_ms = record.held_since_ms,
        }
        add_owner(record.owner_id)
      end
    end
  end
until cursor == '0' or #reply.locks >= limit

for _, member in ipairs(redis.call('ZRANGE', QUEUE, 0, limit - 1)) do
  local lock_end = string.find(member, '\0', 1, true)
  local request_id = lock_end and queued_request(member, lock_end - 1)
  local wait = request_id and readable(load, WAITS, request_id)
  if wait and type(wait.waiting_for) == 'string' and type(wait.locks) == 'table' and tonumber(wait.asked_ms) then
    reply.waits[#reply.waits + 1] = {
      request_id = request_id,
      owner_id = wait.owner_id,
      waiting_for = wait.waiting_for,
      locks = wait.locks,
      asked_ms = wait.asked_ms,
      enclosing_tokens = wait.enclosing_tokens,
    }
    add_owner(wait.owner_id)
  end
end
return cjson.encode(reply)
