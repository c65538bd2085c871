-- create: store a signature, a chain or a swarm with all its members, unless it is stored already.
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
--   kind     text   task, chain or swarm
--   header   json   further header fields, all text
--   by       text   who creates it
--   ...      text   path, definition, path, definition, …
-- RESULT   {1 if created now or 0, status}
-- TTL      the active TTL on record and defs; the counts of the shard twice that
-- ATOMIC   a retried task that creates the same thing again must find the first one whole, or nothing
-- INCLUDE  paths record
if read_head() then return {0, head.st} end
head.kind = ARGV[2]
local fields = cjson.decode(ARGV[3])
for name, value in pairs(fields) do put(name, value) end
put('kind', ARGV[2])
put('created', integer(NOW))
set_status('pending', ARGV[4], '')
for i = 5, #ARGV, 2 do redis.call('HSET', D, ARGV[i], ARGV[i + 1]) end
touch()
return {1, head.st}
