-- Library of the record scripts: the field history of a record, as JSON text. Needs nothing.
local MAX_HISTORY = 32

-- The history with one more change at its end, without the oldest ones that are too many. It is not decoded: that takes
-- longer than the rest of an admission. Between two changes stands },{" and a letter. In a text of JSON a quotation mark
-- has a backslash before it, or is the last one, and no letter follows that.
local function history_with(history, change)
  if string.sub(history, 1, 2) ~= '[{' or string.sub(history, -2) ~= '}]' then
    local kept = cjson.decode(history)
    for i = 1, #kept do kept[i] = cjson.encode(kept[i]) end
    kept[#kept + 1] = change
    return '[' .. table.concat(kept, ',', math.max(1, #kept - MAX_HISTORY + 1)) .. ']'
  end
  local starts, at = {2}, string.find(history, '},{"', 1, true)
  while at do
    if string.find(history, '^%a', at + 4) then starts[#starts + 1] = at + 2 end
    at = string.find(history, '},{"', at + 3, true)
  end
  return '[' .. string.sub(history, starts[math.max(1, #starts - MAX_HISTORY + 2)], -2) .. ',' .. change .. ']'
end
