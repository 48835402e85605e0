-- SPDX-License-Identifier: Apache-2.0
-- Accept-Encoding (RFC 9110 12.5.3).
local accept = {}

-- qvalue: three digits behind the dot at most. What is none counts as 0: the client wanted to say something of it.
local function weight(parameters)
  local value = parameters:match("^%s*;%s*[qQ]=([^;%s]*)")
  if not value then return parameters:find("%S") and 0 or 1 end
  if not value:find("^[01]%.?%d?%d?%d?$") then return 0 end
  return math.min(tonumber(value) or 0, 1)
end

local function weights_of(field)
  local weights = {}
  for entry in field:gmatch("[^,]+") do
    local coding, parameters = entry:match("^%s*([%w*!#$%%&'+.^_`|~-]+)(.*)$")
    if coding then weights[coding:lower()] = weight(parameters) end
  end
  if weights["x-gzip"] and not weights.gzip then weights.gzip = weights["x-gzip"] end
  return weights
end

-- The coding that the client likes best; of several the first in `order`.
---@param field string Accept-Encoding
---@param order string[] of codings that we have
---@return string|nil
function accept.choose(field, order)
  local weights = weights_of(field)
  local best, most = nil, 0
  for _, coding in ipairs(order) do
    local q = weights[coding] or weights["*"] or 0
    if q > most then best, most = coding, q end
  end
  if best and (weights.identity or 0) > most then return nil end
  return best
end

return accept
