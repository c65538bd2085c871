-- start: begin a chain or a swarm with a message; once.
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
--   message  text   JSON of an object: the whole message
--   message_set text   JSON: the part of it that the caller set, or nothing where this is the whole
--   parent_value text   JSON: what the parent hands to a nested flow, {"result": ...} or {"error": ...}, or nothing
--   trace    text   the context that runs of the flow belong under
--   parent   text   <record key>#<path> of the flow this is a member of, or nothing
--   by       text   who starts it
--   options  text   JSON: metadata and priority of every run of the flow, or nothing
--   scheduled text  1 to begin with the message that schedule.lua stored, if it is time
--   handed_ms text  of a nested flow: when what came before it in its parent ended, epoch ms; or nothing
-- RESULT   the envelope of lib_flow; verdict started, held (suspended: begins at resume), repeated (it had begun for
--          this parent before), owned (it had begun otherwise, or has ended), early (it is
--          scheduled for later, or no more) or gone
-- TTL      every key of the record: refreshed
-- ATOMIC   two starts must not send the first step twice
-- INCLUDE  history paths damage record flow
local message, message_set, parent_value, traceparent, parent, by, options, scheduled = unpack(ARGV, 2, 9)
local handed_ms = tonumber(ARGV[10])
if not read_header() then return GONE end
facts.steps = number('total')
if has_started() then
  if parent ~= (header.parent or '') then return reply('owned') end
  facts.status = header.status
  return reply('repeated')
end
if header.status ~= 'pending' and header.status ~= 'suspended' then
  facts.status = header.status
  return reply('owned')
end
if scheduled ~= '' then
  if not header.starts_ms or number('starts_ms') > NOW_MS then return reply('early') end
  message, message_set, options = header.message, header.message_set or '', header.options or ''
end
put('started_ms', integer(NOW_MS))  -- before anything is deleted: a full Redis refuses the start whole
put('message', message)
clear('starts_ms')
clear('message_set')
clear('options')
local texts = {
  message_set = message_set, parent_value = parent_value, traceparent = traceparent, parent = parent, started_by = by,
  options = options,
}
for field, value in pairs(texts) do
  if value ~= '' then put(field, value) end
end
set_started(header.started_ms)
if header.status == 'suspended' then
  refresh()
  return reply('held')
end
begin_flow(handed_ms)
refresh()
return reply('started')
