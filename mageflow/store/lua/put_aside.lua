-- put_aside: note that a record cannot be read, and let no reconciler visit it.
--
-- KEYS
--   due      zset   the reconciler's index of the shard
-- ARGS
--   record   text   the member of the index
--   kind     text   record, or entry if it is no key of a record
--   reason   text   what cannot be read
-- RESULT   1 if it was not noted before, else 0
-- TTL      the notes: a week
-- ATOMIC   of two workers one reports the damage
-- INCLUDE  damage moving
refuse_while_moving(KEYS[1])
on_index('ZREM', KEYS[1], ARGV[1])
return note_damage(KEYS[1], ARGV[1], ARGV[2], ARGV[3], true) and 1 or 0
