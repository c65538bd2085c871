-- The first part of lock_acquire: one free lock for an owner without a record (so no request of it waits), which is
-- most requests. It writes what lib_lock would write and returns. Anything else falls through, unchanged, to the script
-- behind it. It stands in front of lib_lock, because the functions of that library cost as much to make as all of this.
do
  local LOCKS, OWNERS, SESSIONS, MEMBERS, FENCE = KEYS[1], KEYS[2], KEYS[5], KEYS[6], KEYS[7]
  local STATE_TTL_MS, FENCE_TTL_MS = 86400000, 604800000
  local request_id, owner_id, session_id, lock = ARGV[1], ARGV[2], ARGV[3], ARGV[14]
  local may = redis.acl_check_cmd  -- a server takes nothing back when it refuses the third of five writes
  local clock = redis.call('TIME')
  local seconds, microseconds = clock[1], tonumber(clock[2])
  local now_ms = seconds .. string.format('%03d', math.floor(microseconds / 1000))
  local token = seconds .. string.format('%06d', microseconds)
  local last_token = redis.call('GET', FENCE)
  -- Both are text of 16 digits, so their order is that of the numbers.
  if #ARGV == 14 and #token == 16 and (not last_token or (#last_token == 16 and last_token < token))
    and redis.call('EXISTS', LOCKS .. ':withdrawn:' .. request_id) == 0
    and not redis.call('HGET', LOCKS, lock)
    and not redis.call('HGET', OWNERS, owner_id)
    and not redis.call('ZRANGEBYSCORE', SESSIONS, '-inf', now_ms, 'LIMIT', 0, 1)[1]
    and (ARGV[5] ~= '1' or redis.call('ZSCORE', SESSIONS, session_id))
    and (not may or (may('ZADD', SESSIONS) and may('ZADD', MEMBERS) and may('HSET', OWNERS) and may('HSET', LOCKS)
      and may('SET', FENCE) and may('PEXPIRE', SESSIONS))) then
    redis.call('ZADD', SESSIONS, 'GT', string.format('%.0f', now_ms + ARGV[6]), session_id)
    redis.call('ZADD', MEMBERS, 0, owner_id)
    redis.call('HSET', OWNERS, owner_id, cjson.encode({
      wake_id = ARGV[4],
      born_ms = tonumber(ARGV[9]),
      priority = tonumber(ARGV[10]),
      info = ARGV[12],
      locks = { lock },
      request_ids = {},
    }))
    redis.call('HSET', LOCKS, lock, cjson.encode({
      owner_id = owner_id,
      token = token,
      held_since_ms = tonumber(now_ms),
      request_ids = { request_id },
      traceparent = ARGV[11],
    }))
    redis.call('SET', FENCE, token, 'PX', FENCE_TTL_MS)
    redis.call('PEXPIRE', SESSIONS, STATE_TTL_MS)
    redis.call('PEXPIRE', MEMBERS, STATE_TTL_MS)
    redis.call('PEXPIRE', OWNERS, STATE_TTL_MS)
    redis.call('PEXPIRE', LOCKS, STATE_TTL_MS)
    return '{"verdict":"granted","tokens":["' .. token .. '"],"now_ms":' .. now_ms .. '}'
  end
end
