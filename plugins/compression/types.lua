-- SPDX-License-Identifier: Apache-2.0
-- Lists of media types, with `*` for any run of characters: "text/*", "application/*+json".
local types = {}

local MOST_KNOWN = 100

local function pattern_of(entry)
  return "^" .. entry:lower():gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*") .. "$"
end

---@param list string[]
---@return fun(content_type: string): boolean whether a Content-Type is of one of these
function types.compile(list)
  local patterns, known, count = {}, {}, 0
  for i, entry in ipairs(list) do patterns[i] = pattern_of(entry) end
  local function find(content_type)
    local mime = content_type:match("^%s*([^;%s]*)"):lower()
    for _, pattern in ipairs(patterns) do
      if mime:find(pattern) then return true end
    end
    return false
  end
  return function(content_type)
    local found = known[content_type]
    if found ~= nil then return found end
    if count >= MOST_KNOWN then known, count = {}, 0 end
    found = find(content_type)
    known[content_type], count = found, count + 1
    return found
  end
end

return types
