-- Library of the scripts over many keys: which of them exist, in few commands. Most of an idle namespace's do not.

-- Halves the list until all of a part exist or none does. Returns a set.
local function present_of(keys)
  local present = {}
  local function visit(first, last)
    local count = redis.call('EXISTS', unpack(keys, first, last))
    if count == last - first + 1 then
      for i = first, last do present[keys[i]] = true end
    elseif count > 0 then
      local middle = math.floor((first + last) / 2)
      visit(first, middle)
      visit(middle + 1, last)
    end
  end
  visit(1, #keys)
  return present
end
