-- SPDX-License-Identifier: Apache-2.0
-- "Did you mean": the nearest of a set of names, by edits (with swaps of neighbours), when it is near enough.
local suggest = {}

local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      local swapped = i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j)
      if swapped then row[j] = math.min(row[j], before[j - 2] + 1) end
    end
    before, last = last, row
  end
  return last[#b]
end

-- The name among `names` (an array) that `word` probably meant, or nil.
function suggest.nearest(word, names)
  if #word > 64 or #word < 3 then return nil end
  local best, best_distance = nil, math.floor(#word / 3) + 1
  for _, name in ipairs(names) do
    local d = distance(word:lower(), name:lower())
    if d < best_distance or (d == best_distance and best and name < best) then best, best_distance = name, d end
  end
  return best
end

-- ', did you mean "x"?' or "".
function suggest.phrase(word, names)
  local name = suggest.nearest(word, names)
  return name and (', did you mean "%s"?'):format(name) or ""
end

return suggest
