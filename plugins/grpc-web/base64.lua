-- SPDX-License-Identifier: Apache-2.0
-- Base64 as gRPC-Web has it: texts, each with padding of its own, may stand one behind the other.
local crypto = require "sluice.crypto"

local base64 = {}

base64.encode = crypto.base64_encode

---@param text string
---@return string|nil bytes nil: not base64
function base64.decode(text)
  local parts, after = {}, 1
  for part, stop in text:gmatch("([^=]+=?=?)()") do
    local bytes = crypto.base64_decode(part)
    if not bytes then return nil end
    parts[#parts + 1] = bytes
    after = stop
  end
  if after <= #text then return nil end
  return table.concat(parts)
end

return base64
