-- load: read a record or one member of it.
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
--   path     text   the member, or nothing for the record itself
--   result   text   1 to read the result too
-- RESULT   nothing when it is not stored, else {header, definition, successes, errors, state, result}
-- TTL      none changes: reading is not progress
-- ATOMIC   header and member must be of the same moment
-- INCLUDE  paths record flow
if not read_head() then return false end
local path = ARGV[2]
local def = definition(path)
if not def then return false end
local wanted = ''
if ARGV[3] == '1' and path ~= '' then wanted = redis.call('HGET', V, path) or '' end
if ARGV[3] == '1' and path == '' and head.kind ~= 'task' and head.st == 'done' then wanted = flow_result() end
head.msg, head.carry = nil, nil
local flat = {}
for name, value in pairs(head) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
return {flat, def.json, def.successes, def.errors, path ~= '' and redis.call('HGET', S, path) or '', wanted}
