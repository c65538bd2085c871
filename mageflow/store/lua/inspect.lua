-- inspect: what of a record was decided and never sent, and which of its runs nobody has heard of for long.
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
--   lease_ms text   for how long the caller claims what it is given to send
--   limit    text   how many of each at most
-- RESULT   the envelope of lib_flow; verdict gone or the status; facts.silent lists {path, run, attempt, stored error,
--          milliseconds of silence} of the runs to ask Hatchet about
-- TTL      none changes: looking is not progress
-- ATOMIC   two reconcilers must not send the same entry at the same time
-- INCLUDE  paths record flow
if not read_head() then
  redis.call('ZREM', U, R)
  local identity = string.match(R, '([^:]*)$')
  redis.call('ZREM', T .. ':started:chain', identity)
  redis.call('ZREM', T .. ':started:swarm', identity)
  redis.call('HDEL', T .. ':items', identity)
  return {'gone', '{}', '', '', '', '', {}}
end
local limit = tonumber(ARGV[3])
fill(false)
local fresh = {}
for _, path in ipairs(sends) do fresh[path] = true end
local flat = redis.call('HGETALL', O)
for i = 1, #flat, 2 do
  if #sends >= limit then break end
  local path, entry = flat[i], cjson.decode(flat[i + 1])
  if not fresh[path] and entry.t + CFG.grace <= NOW and (entry.c or 0) <= NOW then
    entry.c = NOW + tonumber(ARGV[2])
    entry.n = (entry.n or 0) + 1
    redis.call('HSET', O, path, cjson.encode(entry))
    sends[#sends + 1] = path
  end
end
local silent = {}
for _, path in ipairs(redis.call('ZRANGEBYSCORE', L, '-inf', integer(NOW - CFG.check), 'LIMIT', 0, limit)) do
  local state = state_of(path)
  if state and state.run then
    silent[#silent + 1] = {path, state.run, integer(state.at), state.er or '', integer(NOW - state.t)}
    redis.call('ZADD', L, integer(NOW), path)
  else
    redis.call('ZREM', L, path)
  end
end
if #silent > 0 then facts.silent = silent end
local waits = redis.call('HLEN', O) > 0
if ENDED[head.st] and not waits and redis.call('ZCARD', L) == 0 then
  redis.call('ZREM', U, R)
else
  redis.call('ZADD', U, integer(NOW + (waits and CFG.grace or CFG.check)), R)
end
return reply(head.st)
