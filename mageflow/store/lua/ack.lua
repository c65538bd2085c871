-- ack: remove entries of the outbox that were sent, and store the run ids they led to.
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
--   ...      text   field, epoch, run id, field, epoch, run id, ...
-- RESULT   how many were still in the outbox
-- TTL      every key of the record: refreshed
-- ATOMIC   an admission in between has already removed the entry, and its state is newer
-- INCLUDE  history paths damage record
if not read_header() then return 0 end
local count = acknowledge(2)
refresh()
return count
