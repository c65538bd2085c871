-- Library of the scripts over many keys: which of them exist, in few commands. Most of an idle namespace's do not.

-- Halves the list until all of a part exist or none does. Returns a set. width: how many in a row often exist together,
-- and stay together as long as the part is longer; the list is a multiple of it.
local function present_of(keys, width)
  local present = {}
  local function visit(first, last)
    local count = redis.call('EXISTS', unpack(keys, first, last))
    if count == last - first + 1 then
      for i = first, last do present[keys[i]] = true end
    elseif count > 0 then
      local half, row = (last - first + 1) / 2, width or 1
      if half < row then row = 1 end
      local middle = first - 1 + math.floor(half / row) * row
      visit(first, middle)
      visit(middle + 1, last)
    end
  end
  visit(1, #keys)
  return present
end
