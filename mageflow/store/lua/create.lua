-- create: store a signature, a chain or a swarm with all its members, unless it is stored already.
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
--   ...          hash   headers of the signatures that were copied into it; more than those of the shard only outside a
--                       Cluster
-- ARGS
--   config   json   TTLs and intervals
--   kind     text   task, chain or swarm
--   header   json   further header fields, all text
--   by       text   who creates it
--   copies   json   for each such signature {paths of its copies, whether there are more}
--   ...      text   definition path, definition, definition path, definition, ...
-- RESULT   {1 if created now or 0, status}
-- TTL      the active TTL on record and definitions; the counts of the shard twice that
-- ATOMIC   a retried task that creates the same thing again must find the first one whole, or nothing
-- INCLUDE  history paths damage record copies
local kind, fields, by = ARGV[2], cjson.decode(ARGV[3]), ARGV[4]
note_copies(ARGV[5], 10, RECORD, FORMAT, 0)
if read_header() then return {0, header.status} end
put('format', FORMAT)
put('kind', kind)
for field, value in pairs(fields) do put(field, value) end
put('created_ms', integer(NOW_MS))
set_status('pending', by, '')
for i = 6, #ARGV, 2 do redis.call('HSET', DEFINITIONS, ARGV[i], ARGV[i + 1]) end
refresh()
return {1, header.status}
