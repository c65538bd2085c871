-- ack: note that entries of the outbox were sent, and under which run ids.
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
--   ...      text   path, epoch, run id, path, epoch, run id, …
-- RESULT   how many were still waiting
-- TTL      every key of the record: refreshed
-- ATOMIC   an admission in between has already removed the entry and knows better
-- INCLUDE  record
if not read_head() then return 0 end
local count = 0
for i = 2, #ARGV, 3 do
  local path, epoch, run = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local raw = redis.call('HGET', O, path)
  if raw and cjson.decode(raw).ep == epoch then
    redis.call('HDEL', O, path)
    count = count + 1
    local state = state_of(path)
    if state and state.st == 'queued' and state.ep == epoch and run ~= '' then
      state.st, state.run = string.sub(run, 1, 5) == 'flow:' and 'active' or 'sent', run
      keep(path, state)
      redis.call('ZADD', L, integer(NOW), path)
    end
  end
end
touch()
return count
