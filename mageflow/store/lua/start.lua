-- start: begin a chain or a swarm with a message; once.
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
--   message  text   JSON of an object
--   parent_value text   JSON: what the parent hands to a nested flow, {"result": …} or {"error": …}, or nothing
--   trace    text   the traceparent of the start
--   parent   text   <record>#<path> of the flow this is a member of, or nothing
--   by       text   who starts it
-- RESULT   the envelope of lib_flow; verdict started, held (suspended: begins at resume), repeated (it had begun for
--          this parent before), owned (it had begun otherwise) or gone
-- TTL      every key of the record: refreshed
-- ATOMIC   two starts must not send the first step twice
-- INCLUDE  paths record flow
if not read_head() then return {'gone', '{}', '', '', '', '', {}} end
facts.steps = number('total')
if (head.started or '') ~= '' then
  if ARGV[5] ~= (head.parent or '') then return reply('owned') end
  facts.status = head.st
  return reply('repeated')
end
if head.st ~= 'pending' and head.st ~= 'suspended' then facts.status = head.st; return reply('owned') end
put('started', integer(NOW))
put('msg', ARGV[2])
put('carry', ARGV[3])
put('trace', ARGV[4])
put('parent', ARGV[5])
put('by', ARGV[6])
redis.call('ZADD', T .. ':started:' .. head.kind, integer(NOW), string.match(R, '([^:]*)$'))
redis.call('EXPIRE', T .. ':started:' .. head.kind, CFG.active * 2)
if head.st == 'suspended' then
  touch()
  return reply('held')
end
begin()
touch()
return reply('started')
