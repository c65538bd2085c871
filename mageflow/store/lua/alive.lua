-- alive: note that runs nobody had heard of are still going, which counts as progress.
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
-- RESULT   1 if it is stored, else 0
-- TTL      every key of the record: refreshed
-- ATOMIC   the TTLs of one record must not drift apart
-- INCLUDE  record
if not read_head() then return 0 end
touch()
return 1
