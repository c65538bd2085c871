-- Library of the scripts that name one key of a shard and use others of it: all or none of these must be here. Scripts
-- that name the counts beside other keys need it not: no key has the name of the counts alone, so they are refused whole.
--
-- While a slot moves, both masters refuse a command with two keys of which one is missing, and no key has the name of
-- none. A command with one key would take what is on its way for missing; made anew, it would stop the move.
local function refuse_while_moving(key) redis.call('EXISTS', key, string.match(key, '^(.-})') .. ':none') end
