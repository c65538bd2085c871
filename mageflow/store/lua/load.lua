-- load: read a record or one member of it.
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
--   path     text   the member, or nothing for the record itself
--   result   text   1 to read the result too
-- RESULT   nothing when it is not stored, else {header, definition, success callbacks, error callbacks, state, result}
-- TTL      none changes: reading is not progress
-- ATOMIC   header and member must be of the same moment
-- INCLUDE  history paths damage record flow
local path, wants_result = ARGV[2], ARGV[3] == '1'
if not read_header() then return false end
local def = definition(path)
if not def then return false end
local result = ''
if wants_result and path ~= '' then
  result = redis.call('HGET', RESULTS, path) or ''
elseif wants_result and is_flow() and header.status == 'done' then
  result = flow_result()
end
local state = path ~= '' and redis.call('HGET', MEMBERS, path) or ''
return {flat_header(), def.json, def.success_callbacks, def.error_callbacks, state, result}
