-- inspect: find what of a record was decided and never sent, and which of its runs have been silent for long.
--
-- KEYS
--   record       hash   the header of the record
--   definitions  hash   definitions of its members
--   members      hash   states of its members
--   results      hash   results of its members
--   live         zset   members that were sent or run
--   outbox       hash   what is not known to be sent
--   held         list   what waits for resume
--   due          zset   the reconciler's index of the shard
--   stats        text   what the keys of the shard's counts begin with
-- ARGS
--   config   json   TTLs and intervals
--   lease_ms text   for how long the found entries belong to the caller
--   limit    text   how many of each at most
-- RESULT   the envelope of lib_flow; verdict gone or the status; facts.silent lists {path, run id, attempt number,
--          stored error, milliseconds of silence, whether it is of a workflow} of the runs to look up in Hatchet
-- TTL      none changes: looking is not progress
-- ATOMIC   two reconcilers must not send the same entry at the same time
-- INCLUDE  history paths damage record flow
local lease_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
if not read_header() then
  on_index('ZREM', DUE, RECORD)
  on_index('ZREM', STARTED_FLOWS .. 'chain', IDENTITY)
  on_index('ZREM', STARTED_FLOWS .. 'swarm', IDENTITY)
  on_index('HDEL', ITEM_COUNTS, IDENTITY)
  return GONE
end
fill_places(false)
local is_new = {}
for _, field in ipairs(to_send) do is_new[field] = true end
local flat = redis.call('HGETALL', OUTBOX)
for i = 1, #flat, 2 do
  if #to_send >= limit then break end
  local field, entry = flat[i], cjson.decode(flat[i + 1])
  local is_late = entry.decided_ms + SETTINGS.grace_ms <= NOW_MS and (entry.claimed_until_ms or 0) <= NOW_MS
  if is_late and not is_new[field] then
    entry.claimed_until_ms = NOW_MS + lease_ms
    entry.tries = (entry.tries or 0) + 1
    redis.call('HSET', OUTBOX, field, cjson.encode(entry))
    to_send[#to_send + 1] = field
  end
end
local silent = {}
local latest = integer(NOW_MS - SETTINGS.check_ms)
for _, path in ipairs(redis.call('ZRANGEBYSCORE', LIVE, '-inf', latest, 'LIMIT', 0, limit)) do
  local state = state_of(path)
  if state and state.run_id then
    local silence_ms = integer(NOW_MS - state.changed_ms)
    silent[#silent + 1] = {
      path, state.run_id, integer(state.attempt_number), state.error or '', silence_ms, state.is_workflow or false,
    }
    set_live(path)
  else
    redis.call('ZREM', LIVE, path)
  end
end
if #silent > 0 then facts.silent = silent end
local is_scheduled = header.starts_ms and not ENDED[header.status]
facts.is_due = is_scheduled and number('starts_ms') <= NOW_MS or nil
local has_unsent = redis.call('HLEN', OUTBOX) > 0
if ENDED[header.status] and not has_unsent and redis.call('ZCARD', LIVE) == 0 then
  on_index('ZREM', DUE, RECORD)
elseif is_scheduled and not facts.is_due and not has_unsent then
  on_index('ZADD', DUE, header.starts_ms, RECORD)
else
  on_index('ZADD', DUE, integer(NOW_MS + (has_unsent and SETTINGS.grace_ms or SETTINGS.check_ms)), RECORD)
end
return reply(header.status)
