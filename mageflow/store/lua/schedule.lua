-- schedule: store when a flow starts by itself and with what, take that back, or only keep a record until a start that is
-- scheduled.
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
--   at_ms    text   epoch milliseconds of the start; nothing to take it back
--   starts   text   1: this flow starts then; nothing: something else starts that needs the record
--   message  text   JSON of an object: the whole message
--   message_set text   JSON: the part of it that the caller set, or nothing where this is the whole
--   options  text   JSON: metadata and priority of every run of the flow, or nothing
--   why      text   for the history
-- RESULT   {scheduled, begun (it has started or ended; nothing changed), free (it had no start to take back) or gone;
--           status; epoch milliseconds of the start that is taken back}
-- TTL      every key of the record: the active TTL after the start
-- ATOMIC   a start in between must not be followed by a second one; the same call again changes nothing
-- INCLUDE  history paths damage record
local at_ms, starts, message, message_set, options, why = tonumber(ARGV[2]), unpack(ARGV, 3, 7)
if not read_header() then return {'gone', ''} end
if not header.status then damaged('the header has no status') end
if not at_ms then
  local taken_ms = header.starts_ms
  if not taken_ms or has_started() or ENDED[header.status] then return {'free', header.status} end
  note('unscheduled', why)  -- before anything is deleted, as below
  clear('starts_ms')
  clear('message')
  clear('message_set')
  clear('options')
  refresh()
  return {'scheduled', header.status, taken_ms}
end
if starts ~= '' then
  if has_started() or ENDED[header.status] then return {'begun', header.status} end
  put('starts_ms', integer(at_ms))  -- before anything is deleted: a full Redis refuses the call whole
  put('message', message)
  clear('message_set')
  clear('options')
  if message_set ~= '' then put('message_set', message_set) end
  if options ~= '' then put('options', options) end
  note('scheduled', why)
end
if at_ms > number('kept_until_ms') then put('kept_until_ms', integer(at_ms)) end
refresh()
return {'scheduled', header.status}
