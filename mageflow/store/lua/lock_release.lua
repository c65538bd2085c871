-- lock_release: end a request: give its locks to the next in each queue, or leave the queue.
--
-- KEYS
--   locks   hash   held locks; the others get their names from it (lib_lock_keys, fields in lib_lock)
-- ARGS
--   request_id  text   as given to lock_acquire
--   mode        text   end; or unanswered: as end, and the reply repeats what the request has resolved, because its caller
--                      did not wait for the answer; or withdraw: a request that was granted meanwhile keeps its locks
--                      and gets the answer granted
--   ...         text   its locks
-- RESULT   text "ended" of one lock that nothing waits for; else JSON: verdict ended (released: how many of the locks it still held; a repeated call gets the same number) |
--          granted (tokens) | deadlock (cycle, cycle_policy);
--          every JSON: now_ms; expired [{lock, owner_id, info, held_since_ms, traceparent}] and resolved [{cycle,
--          victim_index, policy}] when there are any
-- TTL      as lock_acquire; locks:ended, locks:late and locks:withdrawn:<request id> a minute
-- ATOMIC   between freeing a lock and serving its queue another request could overtake, or the waiter be forgotten
-- INCLUDE  lock
-- FIRST    lock_give lock_keys

local request_id, mode = ARGV[1], ARGV[2]
local FIRST_LOCK = 3
local WITHDRAWN, WITHDRAWN_TTL_MS = LOCKS .. ':withdrawn:', 60000

expire()

local wait = load(WAITS, request_id)
if mode == 'withdraw' and wait and wait.verdict == 'granted' then
  return finish({ verdict = 'granted', tokens = wait.tokens })
end
if mode == 'unanswered' then report_resolved(wait) end
local reply = { verdict = 'ended' }
if wait then
  if wait.verdict == 'deadlock' then
    reply = { verdict = 'deadlock', cycle = wait.cycle, cycle_policy = wait.cycle_policy }
  end
  forget_request(request_id, wait)
end
local released, wanted = 0, #ARGV - FIRST_LOCK + 1
for index = FIRST_LOCK, #ARGV do
  if release_lock(ARGV[index], request_id) then released = released + 1 end
end
-- A driver repeats a call when it misses the answer; the repetition must not look like a lock that was lost.
if reply.verdict == 'ended' then
  if released == wanted then
    note_released(request_id)
  elseif released == 0 and type(redis.pcall('LPOS', ENDED, request_id)) == 'number' then
    released = wanted
  else
    -- The request, or a copy of it, may still be on its way, on the connection of a caller that was cancelled.
    redis.call('SET', WITHDRAWN .. request_id, '', 'PX', WITHDRAWN_TTL_MS)
  end
  reply.released = released
end
return finish(reply)
