-- The first part of lock_release: one lock that no request waits for, of an owner that has nothing else, which is most
-- releases. It writes what lib_lock would write and returns. Anything else falls through, unchanged, to the script
-- behind it. It stands in front of lib_lock, because the functions of that library cost as much to make as all of this.
do
  local LOCKS, OWNERS, QUEUE, SESSIONS, MEMBERS = KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[6]
  local request_id, lock = ARGV[1], ARGV[3]
  local ended, kept, ttl_ms = LOCKS .. ':ended', 1000, 60000
  local may = redis.acl_check_cmd  -- a server takes nothing back when it refuses the third of five writes

  -- The holder, if no other request shares the lock. Damaged records are left to the script.
  local function holder_of(text)
    local is_readable, record = pcall(cjson.decode, text)
    if not is_readable or type(record) ~= 'table' then return nil end
    local request_ids = record.request_ids
    local is_only = type(request_ids) == 'table' and #request_ids == 1 and request_ids[1] == request_id
    return is_only and type(record.owner_id) == 'string' and record.owner_id or nil
  end

  local function has_only_this_lock(text)
    local is_readable, record = pcall(cjson.decode, text)
    if not is_readable or type(record) ~= 'table' then return false end
    local locks, request_ids = record.locks, record.request_ids
    return type(locks) == 'table' and #locks == 1 and locks[1] == lock
      and type(request_ids) == 'table' and #request_ids == 0
  end

  local clock = redis.call('TIME')
  local now_ms = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
  local record = #ARGV == 3 and redis.call('HGET', LOCKS, lock)
  local owner_id = record and holder_of(record)
  local owner = owner_id and redis.call('HGET', OWNERS, owner_id)
  if owner and has_only_this_lock(owner)
    and not redis.call('ZRANGEBYLEX', QUEUE, '[' .. lock .. '\0', '(' .. lock .. '\1', 'LIMIT', 0, 1)[1]
    and not redis.call('ZRANGEBYSCORE', SESSIONS, '-inf', now_ms, 'LIMIT', 0, 1)[1]
    and (not may or (may('ZREM', MEMBERS) and may('HDEL', OWNERS) and may('HDEL', LOCKS) and may('LPUSH', ended)
      and may('LTRIM', ended) and may('PEXPIRE', ended))) then
    redis.call('ZREM', MEMBERS, owner_id)
    redis.call('HDEL', OWNERS, owner_id)
    redis.call('HDEL', LOCKS, lock)
    if redis.call('LPUSH', ended, request_id) > 2 * kept then redis.call('LTRIM', ended, 0, kept - 1) end
    redis.call('PEXPIRE', ended, ttl_ms)
    return '{"verdict":"ended","released":1,"now_ms":' .. now_ms .. '}'
  end
end
