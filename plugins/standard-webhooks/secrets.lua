-- SPDX-License-Identifier: Apache-2.0
-- Secrets as Standard Webhooks writes them: base64, often behind a prefix.
local crypto = require "sluice.crypto"

local secrets = {}

local PREFIX = "whsec_"

---@param text string
---@return string|nil bytes
function secrets.bytes(text)
  if text:sub(1, #PREFIX) == PREFIX then return crypto.base64_decode(text:sub(#PREFIX + 1)) end
  return crypto.base64_decode(text) or text
end

-- As a schema's check: a reference to a vault is not the secret itself.
function secrets.check(text)
  if text:find("^{vault://") then return true end
  local bytes = secrets.bytes(text)
  if bytes and bytes ~= "" then return true end
  return nil, "expected base64 behind " .. PREFIX
end

return secrets
