-- The first part of lock_release: one lock that no request waits for, of an owner that has nothing else, which is most
-- releases. It writes what lib_lock would write and returns. Anything else falls through, unchanged, to the script
-- behind it. It stands in front of lib_lock, because the functions of that library cost as much to make as all of this.
-- It reads no JSON: records as lib_lock_take has stored them begin with what it looks for, and any others, damaged ones
-- too, are left to the script.
do
  local LOCKS, prefix = KEYS[1], string.sub(KEYS[1], 1, -6)
  local OWNERS, SESSIONS, MEMBERS = prefix .. 'owners', prefix .. 'sessions', prefix .. 'members'
  local request_id, lock = ARGV[1], ARGV[3]
  local ended, late, kept, ttl_ms = LOCKS .. ':ended', LOCKS .. ':late', 1000, 60000
  local may = redis.acl_check_cmd  -- a server takes nothing back when it refuses the third of five writes

  -- While the slot of these keys moves, both masters refuse a command with two keys of which one is missing, and no key
  -- has the name of wake alone. A command with one key would take what is on its way for missing, and make it anew.
  redis.call('EXISTS', LOCKS, prefix .. 'wake')
  local clock = redis.call('TIME')
  local now_ms = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
  local record = #ARGV == 3 and redis.call('HGET', LOCKS, lock)
  local only_request_id, owner_id
  if record then
    only_request_id, owner_id = string.match(record, '^{"request_ids":%["([^"\\]*)"%],"owner_id":"([^"\\]*)",.*}$')
  end
  local owner = only_request_id == request_id and redis.call('HGET', OWNERS, owner_id)
  if owner and string.match(owner, '^{"locks":%["([^"\\]*)"%],"request_ids":{},.*}$') == lock
    and redis.call('ZLEXCOUNT', prefix .. 'queue', '[' .. lock .. '\0', '(' .. lock .. '\1') == 0
    and not redis.call('ZRANGEBYSCORE', SESSIONS, '-inf', now_ms, 'LIMIT', 0, 1)[1]
    and (not may or (may('ZREM', MEMBERS) and may('HDEL', OWNERS) and may('HDEL', LOCKS) and may('LPUSH', ended)
      and may('LTRIM', ended) and may('PEXPIRE', ended))) then
    redis.call('ZREM', MEMBERS, owner_id)
    redis.call('HDEL', OWNERS, owner_id)
    redis.call('HDEL', LOCKS, lock)
    local count = redis.pcall('LPUSH', ended, request_id)
    if type(count) == 'table' then
      redis.call('DEL', ended)
      redis.call('LPUSH', ended, request_id)
    elseif count > 2 * kept then
      redis.call('LTRIM', ended, 0, kept - 1)
    end
    redis.call('PEXPIRE', ended, ttl_ms)
    redis.pcall('HSET', late, string.sub(request_id, 1, 3), request_id)
    redis.pcall('PEXPIRE', late, ttl_ms)
    return 'ended'
  end
end
