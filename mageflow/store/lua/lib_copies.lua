-- Library of the scripts that copy signatures into a record: each signature keeps where its copies are, so that a
-- suspension of the signature reaches what will run. Needs no other library.
local MAX_COPIES = 32

-- record: of a signature. One that is gone, damaged, or of another format needs no note.
local function add_copies(record, format, added, has_more)
  local found = redis.pcall('HMGET', record, 'format', 'copies')
  if found.err or found[1] ~= format then return end
  local is_readable, stored = pcall(cjson.decode, found[2] or '')
  local known, keys, more = {}, {}, has_more
  if is_readable and type(stored) == 'table' and type(stored.keys) == 'table' then
    keys, more = stored.keys, more or stored.more == true
  end
  for _, key in ipairs(keys) do known[key] = true end
  for _, key in ipairs(added) do
    if not known[key] then keys[#keys + 1] = key end
  end
  while #keys > MAX_COPIES do
    table.remove(keys, 1)
    more = true
  end
  redis.call('HSET', record, 'copies', cjson.encode({keys = keys, more = more}))
end

-- text: JSON, for each of the keys from KEYS[first_key] on {paths of its copies, whether there are more}.
-- first_item: number that is added to the index of each path.
local function note_copies(text, first_key, record, format, first_item)
  for i, copies in ipairs(cjson.decode(text)) do
    local keys = {}
    for _, path in ipairs(copies[1]) do
      local index, below = string.match(path, '^(%d*)(.*)$')
      if index ~= '' then index = string.format('%.0f', first_item + index) end
      keys[#keys + 1] = record .. '#' .. index .. below
    end
    add_copies(KEYS[first_key + i - 1], format, keys, copies[2])
  end
end
