-- alive: note that runs of a record are still going, which counts as progress.
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
--   ...      text   members whose task functions run in the caller's process: path, run id, path, run id, ...
-- RESULT   1 if the record is stored, else 0
-- TTL      every key of the record: refreshed
-- ATOMIC   the TTLs of one record must not drift apart
-- INCLUDE  history paths damage record
if not read_header() then return 0 end
for i = 2, #ARGV, 2 do
  local path, run_id = ARGV[i], ARGV[i + 1]
  local state = state_of(path)
  if state and state.status == 'active' and state.run_id == run_id then
    state.heartbeat_ms = NOW_MS
    redis.call('HSET', MEMBERS, path, cjson.encode(state))
  end
end
refresh()
return 1
