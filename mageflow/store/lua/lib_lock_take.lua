-- The first part of lock_acquire: one free lock for an owner without a record (so no request of it waits), which is
-- most requests. It writes what lib_lock would write and returns. Anything else falls through, unchanged, to the script
-- behind it. It stands in front of lib_lock, because the functions of that library cost as much to make as all of this.
-- It stores the records as it gets them: lib_lock_give reads their first fields in this order.
do
  local LOCKS, prefix = KEYS[1], string.sub(KEYS[1], 1, -6)
  local OWNERS, SESSIONS, MEMBERS, FENCE = prefix .. 'owners', prefix .. 'sessions', prefix .. 'members', prefix .. 'fence'
  local STATE_TTL_MS, FENCE_TTL_MS = 86400000, 604800000
  local request_id, owner_id, lock = ARGV[1], ARGV[2], ARGV[6]
  local session_id = string.match(owner_id, '^[^/]*')
  local session_is_open, lease_ms = string.match(ARGV[3], '^(%d) %d (%d+)')
  local may = redis.acl_check_cmd  -- a server takes nothing back when it refuses the third of five writes
  -- While the slot of these keys moves, both masters refuse a command with two keys of which one is missing, and no key
  -- has the name of wake alone. A command with one key would take what is on its way for missing, and make it anew.
  redis.call('EXISTS', LOCKS, prefix .. 'wake')
  local clock = redis.call('TIME')
  local seconds, microseconds = clock[1], tonumber(clock[2])
  local now_ms = seconds .. string.format('%03d', math.floor(microseconds / 1000))
  local token = seconds .. string.format('%06d', microseconds)
  local last_token = redis.call('GET', FENCE)
  -- Both are text of 16 digits, so their order is that of the numbers.
  if #ARGV == 6 and #token == 16 and (not last_token or (#last_token == 16 and last_token < token))
    and redis.call('EXISTS', LOCKS .. ':withdrawn:' .. request_id) == 0
    and redis.pcall('HGET', LOCKS .. ':late', string.sub(request_id, 1, 3)) ~= request_id
    and not redis.call('HGET', LOCKS, lock)
    and not redis.call('HGET', OWNERS, owner_id)
    and not redis.call('ZRANGEBYSCORE', SESSIONS, '-inf', now_ms, 'LIMIT', 0, 1)[1]
    and (session_is_open ~= '1' or redis.call('ZSCORE', SESSIONS, session_id))
    and (not may or (may('ZADD', SESSIONS) and may('ZADD', MEMBERS) and may('HSET', OWNERS) and may('HSET', LOCKS)
      and may('SET', FENCE) and may('PEXPIRE', SESSIONS))) then
    redis.call('ZADD', MEMBERS, 0, owner_id)  -- first: members of another type end the script here
    redis.call('ZADD', SESSIONS, 'GT', string.format('%.0f', now_ms + lease_ms), session_id)
    redis.call('HSET', OWNERS, owner_id, ARGV[5])
    redis.call('HSET', LOCKS, lock, ARGV[4] .. ',"token":"' .. token .. '","held_since_ms":' .. now_ms .. '}')
    redis.call('SET', FENCE, token, 'PX', FENCE_TTL_MS)
    redis.call('PEXPIRE', SESSIONS, STATE_TTL_MS)
    redis.call('PEXPIRE', MEMBERS, STATE_TTL_MS)
    redis.call('PEXPIRE', OWNERS, STATE_TTL_MS)
    redis.call('PEXPIRE', LOCKS, STATE_TTL_MS)
    return 'granted ' .. token
  end
end
