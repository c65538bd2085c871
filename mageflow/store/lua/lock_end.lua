-- lock_end: end attempts or a whole process: their requests leave the queues, their locks go to the next in each.
--
-- KEYS
--   locks     hash   held locks (this and the next seven: field tables in lib_lock)
--   owners    hash   who holds or waits
--   waits     hash   requests that had to queue
--   queue     zset   one queue per lock
--   sessions  zset   sessions of processes, and when each ends unless renewed
--   members   zset   owners of each session
--   fence     text   last token given out
--   wake      list   prefix of the lists that carry verdicts to waiting processes
-- ARGS
--   scope  text   owner or session
--   ...    text   the owner ids, or the session ids
-- RESULT   JSON: verdict ended (released: how many locks the owners still held);
--          every reply: now_ms; expired [{lock, owner_id, info, held_since_ms, traceparent}] and resolved [{cycle,
--          victim_index, policy}] when there are any
-- TTL      as lock_acquire
-- ATOMIC   a lock must not be handed to a request of the very attempt that ends
-- INCLUDE  lock

expire()

local released = 0
if ARGV[1] == 'session' then
  local session_ids = {}
  for index = 2, #ARGV do session_ids[#session_ids + 1] = ARGV[index] end
  end_sessions(session_ids, false)
else
  for index = 2, #ARGV do end_requests(ARGV[index]) end
  for index = 2, #ARGV do released = released + end_leases(ARGV[index], false) end
end
return finish({ verdict = 'ended', released = released })
