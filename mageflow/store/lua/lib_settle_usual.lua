-- The first part of settle: a run that a user has started from a plain signature without success callbacks has
-- succeeded. Needs lib_usual.
do
  local path, run_id, attempt_number, traceparent = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[10]
  local header, def
  if #ARGV == 11 and ARGV[5] == 'succeeded' and ARGV[6] == '0' and ARGV[8] == '' and usual_is_user_run(path) then
    header, def = usual_read()
  end
  if header and def.success_callbacks == 0 and header.status == 'active' and redis.call('HLEN', KEYS[6]) == 0 then
    local is_good, state = pcall(cjson.decode, redis.call('HGET', KEYS[3], path) or '')
    local is_own = is_good and type(state) == 'table' and state.status == 'active' and state.run_id == run_id
      and not state.previous and not state.suspended and type(state.attempt_number) == 'number'
      and (state.failures == nil or type(state.failures) == 'number')
      and (attempt_number == 0 or attempt_number >= state.attempt_number)
    local has_others, has_live_runs = false, false
    for _, live in ipairs(is_own and redis.call('ZRANGE', KEYS[5], 0, 31) or {}) do
      if live ~= path then
        has_others, has_live_runs = true, has_live_runs or usual_is_user_run(live)
      end
    end
    local settings, now_ms = cjson.decode(ARGV[1]), usual_now_ms()
    local status = has_live_runs and 'active' or TRANSITIONS.active.succeed
    local history = status == 'active' and header.history or usual_history(header.history, status, now_ms)
    local ttl_s = has_live_runs and settings.active_ttl_s or settings.done_ttl_s
    local text
    if is_own and has_others == has_live_runs and history and pcall(usual_add_stages, state, ARGV[11]) then
      if traceparent ~= '' then state.traceparent = traceparent end
      state.status, state.error, state.link, state.changed_ms = 'done', nil, nil, now_ms
      is_good, text = pcall(cjson.encode, state)  -- a number may be read that cannot be written
    end
    if text and is_good then
      redis.call('HSET', KEYS[4], path, ARGV[7])  -- first: results of another type end the script here
      if usual_keep_indexes('active', status, now_ms, ttl_s, settings.active_ttl_s * 2,
        has_live_runs and settings.check_ms or nil) then
        local now = usual_integer(now_ms)
        if has_live_runs then
          redis.call('HSET', KEYS[1], 'updated_ms', now)
        else
          redis.call('HSET', KEYS[1], 'status', status, 'history', history, 'ended_ms', now, 'updated_ms', now)
        end
        redis.call('HSET', KEYS[3], path, text)
        redis.call('ZREM', KEYS[5], path)
        redis.call('HDEL', KEYS[4], 'input:' .. path)
        usual_expire(ttl_s)
        return 'settled'
      end
    end
  end
end
