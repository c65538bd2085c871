-- failures: list items of a swarm that ended without success.
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
--   first    text   number of the first item to look at, from 0
--   limit    text   how many items to list
-- RESULT   nothing when it is not stored, else {number of the next item to look at, or -1 at the end; root definition;
--          message; its set part; parent value; rows}; the rows are index, definition and state of each item in turn
-- TTL      none changes: looking is not progress
-- ATOMIC   the items are shown as of one instant
-- INCLUDE  history paths damage record
local MAX_LOOKS, BLOCK, MAX_LISTED, MAX_BYTES = 10000, 500, 500, 4 * 1024 * 1024
local first, limit = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), MAX_LISTED)
if not read_header() then return false end
local root = definition('')
if not root then return false end

-- The words as they stand in the stored text. The quotes of text inside a state are escaped, so they match nothing else.
local WORDS = {'"status":"failed"', '"status":"cancelled"', '"status":"interrupted"'}

local function may_have_failed(raw)
  for _, word in ipairs(WORDS) do
    if string.find(raw, word, 1, true) then return true end
  end
  return false
end

-- Returns the number of the next item to look at.
local function collect(rows, last)
  local bytes, index = 0, first
  while index <= last do
    local paths = {}
    for i = index, math.min(index + BLOCK - 1, last) do paths[#paths + 1] = integer(i) end
    for i, raw in ipairs(redis.call('HMGET', MEMBERS, unpack(paths))) do
      if raw and may_have_failed(raw) then
        local path = paths[i]
        local def, state = definition(path), state_of(path)
        state.failed_input = nil  -- it may be large, and the input is built from the definition
        local text = cjson.encode(state)
        rows[#rows + 1] = path
        rows[#rows + 1] = def and def.json or ''
        rows[#rows + 1] = text
        bytes = bytes + #text + (def and #def.json or 0)
        if #rows >= limit * 3 or bytes >= MAX_BYTES then return index + i end
      end
    end
    index = index + #paths
  end
  return index
end

local rows, total = {}, header.kind == 'swarm' and number('total') or 0
local next_index = collect(rows, math.min(total, first + MAX_LOOKS) - 1)
return {
  next_index < total and next_index or -1, root.json, header.message or '', header.message_set or '',
  header.parent_value or '', rows,
}
