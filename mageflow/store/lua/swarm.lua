-- swarm: add items to a swarm, close it, or fill its free places.
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
--   close    text   1 to accept no more afterwards, full to do so when the limit is reached
--   token    text   says that this very addition was made before, so that it is made once
--   ...      text   definitions of the new items (and of their callbacks) as: offset from the first, or offset and
--                   callback path, then the definition
-- RESULT   the envelope of lib_flow; verdict changed, closed (nothing was added: it accepts no more), full (nothing was
--          added: it would hold more than facts.limit), no_swarm or gone; facts.first_item is the number of the first
--          new item
-- TTL      every key of the record: refreshed
-- ATOMIC   the number of an item, the limit and the end of the swarm depend on each other
-- INCLUDE  paths record flow
if not read_head() then return {'gone', '{}', '', '', '', '', {}} end
if head.kind ~= 'swarm' then return reply('no_swarm') end
local first, added = number('total'), 0
local known = ARGV[3] ~= '' and redis.call('HGET', S, addition_of(ARGV[3]))
if known then
  facts.first_item = tonumber(known)
  return reply('changed')
end
if #ARGV > 3 then
  if head.closed == '1' or ENDED[head.st] then return reply('closed') end
  for i = 4, #ARGV, 2 do if not string.find(ARGV[i], '.', 1, true) then added = added + 1 end end
  if number('allowed') > 0 and first + added > number('allowed') then
    facts.limit = number('allowed')
    return reply('full')
  end
  for i = 4, #ARGV, 2 do
    local offset, rest = string.match(ARGV[i], '^(%d+)(.*)$')
    redis.call('HSET', D, integer(first + tonumber(offset)) .. rest, ARGV[i + 1])
  end
  put('total', integer(first + added))
  facts.first_item = first
  if ARGV[3] ~= '' then redis.call('HSET', S, addition_of(ARGV[3]), integer(first)) end
end
if ARGV[2] == '1' or (ARGV[2] == 'full' and number('allowed') > 0 and number('total') >= number('allowed')) then
  put('closed', '1')
end
fill(added > 0)
finish_swarm()
items_changed()
touch()
return reply('changed')
