-- ack: note that entries of the outbox were sent, and under which run ids.
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
--   ...      text   path, epoch, run id, path, epoch, run id, …
-- RESULT   how many were still waiting
-- TTL      every key of the record: refreshed
-- ATOMIC   an admission in between has already removed the entry and knows better
-- INCLUDE  paths record
if not read_head() then return 0 end
local count = acknowledge(2)
touch()
return count
