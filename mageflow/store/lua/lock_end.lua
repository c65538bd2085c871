-- lock_end: end a run or a whole process: its requests leave their queues, its locks go to the next in each.
--
-- KEYS
--   locks     hash   who holds what (this and the next seven: see lib_lock)
--   owners    hash   runs that hold or ask
--   waits     hash   requests that had to queue
--   queue     zset   one queue per lock
--   sessions  zset   processes and when they end unless renewed
--   members   zset   owners of each session
--   fence     text   last token given out
--   wake      list   prefix of the lists that carry verdicts to waiting processes
-- ARGS
--   scope  text   owner or session
--   ...    text   the owners, or the sessions
-- RESULT   JSON: v ended (n locks that were held by the owners); with now, and reaped / resolved where something was
-- TTL      as lock_acquire
-- ATOMIC   a lock must not be handed to a request of the very run that ends
-- INCLUDE  lock

reap()

local total = 0
if ARGV[1] == 'session' then
  local sessions = {}
  for index = 2, #ARGV do sessions[#sessions + 1] = ARGV[index] end
  end_sessions(sessions, false)
else
  for index = 2, #ARGV do end_requests(ARGV[index]) end
  for index = 2, #ARGV do total = total + end_leases(ARGV[index], false) end
end
return finish({ v = 'ended', n = total })
