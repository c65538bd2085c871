-- remove: delete a record and everything stored for it.
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
-- RESULT   nothing when it is not stored, else the run ids that were live
-- TTL      all keys of the record are deleted
-- ATOMIC   a settlement in between would bring half of it back
-- INCLUDE  paths record
if not read_header() then return false end
-- A damaged record has to go as well: a state that cannot be read names no run.
local run_ids = {}
for _, path in ipairs(redis.pcall('ZRANGE', LIVE, 0, -1)) do
  local is_readable, state = pcall(state_of, path)
  if is_readable and state and state.run_id then run_ids[#run_ids + 1] = state.run_id end
end
redis.call('ZREM', count_key(header.status or ''), IDENTITY)
redis.call('ZREM', STARTED_FLOWS .. (header.kind or ''), IDENTITY)
redis.call('HDEL', ITEM_COUNTS, IDENTITY)
redis.call('ZREM', DUE, RECORD)
redis.call('DEL', RECORD, DEFINITIONS, MEMBERS, RESULTS, LIVE, OUTBOX, HELD)
return run_ids
