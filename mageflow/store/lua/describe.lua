-- describe: show a record with its members as they are at one instant.
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
--   first    text   number of the first step or item to show, from 0
--   limit    text   how many steps, items or runs to show
-- RESULT   nothing when it is not stored, else {header, definition, success callbacks, error callbacks, members, ms to
--          live, now, outbox entries, members sent or running, entries held, when a reconciler looks at it or '', how
--          many steps, items or runs there are}; members are path, definition, state and result size in turn, each
--          followed by its callbacks
-- TTL      none changes: looking is not progress
-- ATOMIC   a step that ends meanwhile must not be shown both running and behind the flow's end
-- INCLUDE  history paths damage record
local MAX_DEPTH, MAX_SHOWN, MAX_LOOKS, COLUMNS = 16, 2000, 20000, 4
local path, first, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not read_header() then return false end
local root = definition(path)
if not root then return false end
local rows, looks = {}, 0

local function show(member, depth)
  looks = looks + 1
  if looks > MAX_LOOKS then return end
  local def = definition(member)
  if not def or #rows > MAX_SHOWN * COLUMNS then return end
  if member ~= '' then
    rows[#rows + 1] = member
    rows[#rows + 1] = def.json
    rows[#rows + 1] = redis.call('HGET', MEMBERS, member) or ''
    rows[#rows + 1] = redis.call('HSTRLEN', RESULTS, member)
  end
  if depth >= MAX_DEPTH then return end
  for i = 0, def.success_callbacks - 1 do show(callback_path(member, true, i), depth + 1) end
  for i = 0, def.error_callbacks - 1 do show(callback_path(member, false, i), depth + 1) end
end

-- Runs that users started from a plain signature, the latest first; the scripts keep no more than some dozens.
local function user_runs()
  local found, flat = {}, redis.call('HGETALL', MEMBERS)
  for i = 1, #flat, 2 do
    if is_user_run_path(flat[i]) then
      found[#found + 1] = {path = flat[i], changed_ms = cjson.decode(flat[i + 1]).changed_ms or 0}
    end
  end
  table.sort(found, function(a, b) return a.changed_ms > b.changed_ms end)
  return found
end

local total = number('total')
if path ~= '' then
  show(path, 0)
elseif header.kind == 'task' then
  local found = user_runs()
  total = #found
  for i = first + 1, math.min(first + limit, #found) do show(found[i].path, 0) end
  if #found == 0 then show('', 0) end
else
  for i = first, math.min(first + limit, total) - 1 do show(integer(i), 0) end
  show('', 0)
end
return {
  flat_header(), root.json, root.success_callbacks, root.error_callbacks, rows, redis.call('PTTL', RECORD), NOW_MS,
  redis.call('HLEN', OUTBOX), redis.call('ZCARD', LIVE), redis.call('LLEN', HELD),
  redis.call('ZSCORE', DUE, RECORD) or '', total,
}
