-- The keys that lib_lock wants, from the name of the first one: they are one namespace's and differ in their last part
-- alone. A call with one key costs less than a call with eight, in the client and in the server. Stands in front of the
-- check of permissions, which goes through all of KEYS.
do
  local prefix = string.sub(KEYS[1], 1, -6)  -- without "locks"
  for _, name in ipairs({ 'owners', 'waits', 'queue', 'sessions', 'members', 'fence', 'wake' }) do
    KEYS[#KEYS + 1] = prefix .. name
  end
end
