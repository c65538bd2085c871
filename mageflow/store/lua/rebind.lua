-- rebind: replace the definition of something that has not begun, if it is still the one that the caller has read.
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
--   before   text   the definition that the caller has read
--   after    text   the new one
-- RESULT   {done, gone, changed (it is another one by now) or begun; status}
-- TTL      every key of the record: refreshed
-- ATOMIC   a run in between would have the old values and a change in between would be lost
-- INCLUDE  history paths damage record
local path, before, after = ARGV[2], ARGV[3], ARGV[4]
if not read_header() then return {'gone', ''} end
local field = definition_path(path)
local stored = redis.call('HGET', DEFINITIONS, field)
if not stored then return {'gone', ''} end
local state = path ~= '' and state_of(path) or nil
if state and state.epoch >= 0 then return {'begun', state.status or ''} end
if ENDED[header.status] then return {'begun', header.status or ''} end
if (path == '' or not is_flow()) and has_started() then return {'begun', header.status or ''} end
if stored ~= before then return {'changed', header.status or ''} end
redis.call('HSET', DEFINITIONS, field, after)
refresh()
return {'done', header.status or ''}
