-- describe: show a record with its members as they are at one instant.
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
--   first    text   number of the first step or item to show, from 0
--   limit    text   how many steps, items or runs to show
-- RESULT   nothing when it is not stored, else {header, definition, successes, errors, members, ms to live, now,
--          outbox entries, members sent or running, members held, when the reconciler looks or '', how many steps, items
--          or runs there are}; members are path, definition, state and result size in turn, each followed by its
--          callbacks
-- TTL      none changes: looking is not progress
-- ATOMIC   a step that ends meanwhile must not be shown both running and behind the flow's end
-- INCLUDE  paths record
if not read_head() then return false end
local path, first, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local root = definition(path)
if not root then return false end
local DEEPEST, MOST = 16, 2000
local members = {}

local function show(member, depth)
  local def = definition(member)
  if not def or #members > MOST * 4 then return end
  if member ~= '' then
    members[#members + 1] = member
    members[#members + 1] = def.json
    members[#members + 1] = redis.call('HGET', S, member) or ''
    members[#members + 1] = redis.call('HSTRLEN', V, member)
  end
  if depth >= DEEPEST then return end
  for i = 0, def.successes - 1 do show(callback_path(member, true, i), depth + 1) end
  for i = 0, def.errors - 1 do show(callback_path(member, false, i), depth + 1) end
end

-- Runs users made of a plain signature, the latest first; the scripts keep no more than some dozens.
local function runs()
  local found, flat = {}, redis.call('HGETALL', S)
  for i = 1, #flat, 2 do
    if is_user_run_path(flat[i]) then
      found[#found + 1] = {flat[i], cjson.decode(flat[i + 1]).t or 0}
    end
  end
  table.sort(found, function(a, b) return a[2] > b[2] end)
  return found
end

if path ~= '' then
  show(path, 0)
elseif head.kind == 'task' then
  local found = runs()
  facts.runs = #found
  for i = first + 1, math.min(first + limit, #found) do show(found[i][1], 0) end
  if #found == 0 then show('', 0) end
else
  for i = first, math.min(first + limit, number('total')) - 1 do show(integer(i), 0) end
  show('', 0)
end

head.msg, head.carry = nil, nil
local flat = {}
for name, value in pairs(head) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
return {
  flat, root.json, root.successes, root.errors, members, redis.call('PTTL', R), NOW, redis.call('HLEN', O),
  redis.call('ZCARD', L), redis.call('LLEN', H), redis.call('ZSCORE', U, R) or '', facts.runs or number('total'),
}
