-- remove: delete a record and everything stored for it.
--
-- KEYS
--   record   hash   the record
--   defs     hash   definitions of its members
--   runs     hash   state of its members
--   results  hash   results of its members
--   live     zset   members sent or running
--   outbox   hash   what is still to be sent
--   held     list   members waiting for resume
--   due      zset   the reconciler's index of the shard
--   stats    zset   the counts of the shard
-- ARGS
--   config   json   TTLs and intervals
-- RESULT   nothing when it is not stored, else the run ids that were live
-- TTL      all keys of the record are deleted
-- ATOMIC   a settlement in between would bring half of it back
-- INCLUDE  paths record
if not read_head() then return false end
-- A record that was damaged must go as well: what cannot be read has no run to tell of.
local runs = {}
for _, path in ipairs(redis.pcall('ZRANGE', L, 0, -1)) do
  local is_readable, state = pcall(state_of, path)
  if is_readable and state and state.run then runs[#runs + 1] = state.run end
end
local counts, identity = census(head.st or '')
redis.call('ZREM', counts, identity)
redis.call('ZREM', T .. ':started:' .. (head.kind or ''), identity)
redis.call('HDEL', T .. ':items', identity)
redis.call('ZREM', U, R)
redis.call('DEL', R, D, S, V, L, O, H)
return runs
