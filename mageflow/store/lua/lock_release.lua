-- lock_release: end a request: give its locks to the next in each queue, or leave the queue.
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
--   request  text   as given to lock_acquire
--   mode     text   end, or withdraw: a request that was granted meanwhile keeps its locks and is told so
--   ...      text   its locks
-- RESULT   JSON: v ended (n how many of the locks were still held by it, the same when it is asked again) |
--          granted (t tokens) | deadlock (c cycle, vp policy); with now, and reaped / resolved where something was
-- TTL      as lock_acquire; locks:ended a minute
-- ATOMIC   between freeing a lock and serving its queue anybody could overtake, or the waiter be forgotten
-- INCLUDE  lock

local id, mode = ARGV[1], ARGV[2]
local ENDED_KEPT, ENDED_TTL_MS = 1000, 60000

reap()

local wait = load(WAITS, id)
if mode == 'withdraw' and wait and wait.v == 'granted' then return finish({ v = 'granted', t = wait.t }) end
local reply = { v = 'ended', n = 0 }
if wait then
  if wait.v == 'deadlock' then reply = { v = 'deadlock', c = wait.c, vp = wait.vp } end
  forget_request(id, wait)
end
for index = 3, #ARGV do
  if drop(ARGV[index], id) and reply.n then reply.n = reply.n + 1 end
end
-- Drivers repeat a call whose answer they did not hear. Only a lock that was taken from its owner counts as lost.
local ENDED = LOCKS .. ':ended'
if reply.n == #ARGV - 2 then
  if redis.call('LPUSH', ENDED, id) > 2 * ENDED_KEPT then redis.call('LTRIM', ENDED, 0, ENDED_KEPT - 1) end
  redis.call('PEXPIRE', ENDED, ENDED_TTL_MS)
elseif reply.n == 0 and redis.call('LPOS', ENDED, id) then
  reply.n = #ARGV - 2
end
return finish(reply)
