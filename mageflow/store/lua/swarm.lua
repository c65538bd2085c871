-- swarm: add items to a swarm, close it, or fill its free places.
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
--   ...          hash   headers of the signatures that are copied into it; more than those of the shard only outside a
--                       Cluster
-- ARGS
--   config   json   TTLs and intervals
--   close    text   now: accept no more items afterwards; when_full: if the limit is reached; no
--   token    text   names this addition, so that it is made once
--   copies   json   for each such signature {offsets and callback paths of its copies, whether there are more}
--   ...      text   definitions of the new items (and of their callbacks) as: offset from the first, or offset and
--                   callback path, then the definition
-- RESULT   the envelope of lib_flow; verdict changed, closed (nothing was added: it accepts no more), full (nothing was
--          added: it would hold more than facts.limit), no_swarm or gone; facts.first_item is the number of the first
--          new item
-- TTL      every key of the record: refreshed
-- ATOMIC   the number of an item, the limit and the end of the swarm depend on each other
-- INCLUDE  history paths damage record flow copies
local close, token = ARGV[2], ARGV[3]
if not read_header() then return GONE end
if header.kind ~= 'swarm' then return reply('no_swarm') end
local first, added, limit = number('total'), 0, number('max_items')
local known = token ~= '' and redis.call('HGET', MEMBERS, addition_of(token))
if known then
  facts.first_item = tonumber(known)
  return reply('changed')
end
if #ARGV > 4 then
  if header.closed == '1' or ENDED[header.status] then return reply('closed') end
  for i = 5, #ARGV, 2 do
    if not owner_of(ARGV[i]) then added = added + 1 end
  end
  if limit > 0 and first + added > limit then
    facts.limit = limit
    return reply('full')
  end
  for i = 5, #ARGV, 2 do
    local offset, callbacks = string.match(ARGV[i], '^(%d+)(.*)$')
    redis.call('HSET', DEFINITIONS, integer(first + tonumber(offset)) .. callbacks, ARGV[i + 1])
  end
  put('total', integer(first + added))
  facts.first_item = first
  note_copies(ARGV[4], 10, RECORD, FORMAT, first)
  if token ~= '' then redis.call('HSET', MEMBERS, addition_of(token), integer(first)) end
end
if close == 'now' or (close == 'when_full' and limit > 0 and number('total') >= limit) then put('closed', '1') end
fill_places(added > 0, first)
finish_swarm()
update_item_counts()
refresh()
return reply('changed')
