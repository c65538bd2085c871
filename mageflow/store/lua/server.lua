-- server: read what the server reports about itself.
--
-- KEYS
-- ARGS
-- RESULT   the sections "server", "memory" and "persistence" of INFO, as text
-- TTL      none: nothing is touched
-- ATOMIC   no; a script because drivers parse INFO in their own ways and ask every node of a cluster
return redis.call('INFO', 'server') .. redis.call('INFO', 'memory') .. redis.call('INFO', 'persistence')
