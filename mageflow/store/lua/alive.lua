-- alive: note that a record has runs that are still going, which counts as progress.
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
--   ...      text   members whose bodies run in the caller's process: path, run id, path, run id, …
-- RESULT   1 if it is stored, else 0
-- TTL      every key of the record: refreshed
-- ATOMIC   the TTLs of one record must not drift apart
-- INCLUDE  paths record
if not read_head() then return 0 end
for i = 2, #ARGV, 2 do
  local state = state_of(ARGV[i])
  if state and state.st == 'active' and state.run == ARGV[i + 1] then
    state.hb = NOW
    redis.call('HSET', S, ARGV[i], cjson.encode(state))
  end
end
touch()
return 1
