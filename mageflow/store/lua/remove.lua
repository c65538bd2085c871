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
-- RESULT   nothing when it is not stored, else {the run ids that were live; 1 if a start lies ahead that is scheduled}
-- TTL      all keys of the record are deleted
-- ATOMIC   a settlement in between would bring half of it back
-- INCLUDE  history paths damage record
local is_readable_header, is_stored = pcall(read_header)
if is_readable_header and not is_stored then return false end
if not is_readable_header and string.find(error_text(is_stored), 'FOREIGNFORMAT', 1, true) then error(is_stored) end
-- A damaged record has to go as well: a state that cannot be read names no run.
local run_ids, kept_until_ms = {}, tonumber(header.kept_until_ms or '')
for _, path in ipairs(redis.pcall('ZRANGE', LIVE, 0, -1)) do
  local is_readable, state = pcall(state_of, path)
  if is_readable and state and type(state.run_id) == 'string' then run_ids[#run_ids + 1] = state.run_id end
end
on_index('ZREM', count_key(header.status or ''), IDENTITY)
on_index('ZREM', STARTED_FLOWS .. (header.kind or ''), IDENTITY)
on_index('HDEL', ITEM_COUNTS, IDENTITY)
on_index('ZREM', DUE, RECORD)
on_index('HDEL', string.match(DUE, '^(.-})') .. ':damaged', RECORD)
redis.call('DEL', RECORD, DEFINITIONS, MEMBERS, RESULTS, LIVE, OUTBOX, HELD)
return {run_ids, kept_until_ms and kept_until_ms > NOW_MS and 1 or 0}
