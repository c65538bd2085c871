-- The first part of admit: a new run that a user has started from a plain signature. Needs lib_usual.
do
  local path, epoch, run_id, task_run_id, worker_id = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
  local input, traceparent, tasks = ARGV[8], ARGV[9], ARGV[12]
  -- An end that is not usual runs more commands. No run is admitted whose end would be refused.
  local may, record, header, def = redis.acl_check_cmd, KEYS[1], nil, nil
  local may_end = not may or may('HEXISTS', record, '') and may('HGETALL', record) and may('HKEYS', record)
    and may('LLEN', record) and may('LRANGE', record, 0, 0) and may('ZCARD', record) and may('ZRANGE', record, 0, 0)
  if may_end and ARGV[13] == '' and (epoch == '' or epoch == '0') and usual_is_user_run(path) then
    header, def = usual_read()
  end
  local task = header and string.match(def.json, '^{"v":%d+,"kind":"task","task":"([^"\\]*)"')
  local attempts, kept = header and usual_number(header.attempts), header and usual_number(header.kept_members)
  local may_start = header and TRANSITIONS[header.status] and TRANSITIONS[header.status].start == 'active'
  if may_start and attempts and kept and task
    and (tasks == '' or string.find(tasks, '\n' .. string.lower(task) .. '\n', 1, true))
    and not redis.call('HGET', KEYS[3], path)
    and redis.call('HLEN', KEYS[3]) < math.max(64, kept * 2)  -- of more, the oldest are deleted
    and redis.call('HLEN', KEYS[6]) == 0 and usual_may_be_written() then
    local settings, now_ms = cjson.decode(ARGV[1]), usual_now_ms()
    local history = header.status == 'active' and header.history or usual_history(header.history, 'active', now_ms)
    if history and input ~= '' then redis.call('HSET', KEYS[4], 'input:' .. path, input) end
    if history and usual_keep_indexes(header.status, 'active', now_ms, settings.active_ttl_s, settings.active_ttl_s * 2,
      settings.check_ms) then
      local now = usual_integer(now_ms)
      local run = cjson.encode({run_id = run_id, task_run_id = task_run_id, worker_id = worker_id})
      local state = cjson.encode({
        status = 'active', epoch = 0, attempt_number = tonumber(ARGV[7]), run_id = run_id, task_run_id = task_run_id,
        worker_id = worker_id, attempts = 1, admitted_ms = now_ms, changed_ms = now_ms,
        traceparent = traceparent ~= '' and traceparent or nil, options = ARGV[11] ~= '' and ARGV[11] or nil,
      })
      redis.call('HSET', KEYS[1], 'started_ms', header.started_ms or now, 'last_run', run,
        'attempts', usual_integer(attempts + 1), 'updated_ms', now)
      if header.status ~= 'active' then redis.call('HSET', KEYS[1], 'status', 'active', 'history', history) end
      redis.call('HSET', KEYS[3], path, state)
      redis.call('ZADD', KEYS[5], now, path)
      usual_expire(settings.active_ttl_s)
      local flat = ARGV[14] == '1' and redis.call('HGETALL', KEYS[1]) or {'name', header.name}
      return {
        'run', 'active', flat, def.json, def.success_callbacks, def.error_callbacks,
        ARGV[14] == '1' and state or '', -1, 0,
      }
    end
  end
end
