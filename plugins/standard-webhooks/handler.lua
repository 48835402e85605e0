-- SPDX-License-Identifier: Apache-2.0
-- Takes messages that their sender has signed as Standard Webhooks 1.0 has it: an HMAC over id, time and body.
local crypto = require "sluice.crypto"
local secrets = require "standard-webhooks.secrets"
local time = require "sluice.time"

local webhooks = { version = "1.0.0", priority = 760 }

local MOST_SIGNATURES = 16 -- a sender that changes its secret signs with both

-- What was said once; nil when it was not said, or twice.
local function only(request, name)
  local value, several = request:get_only_header(name)
  if several or value == "" then return nil end
  return value
end

local function is_timely(conf, text)
  if not text:find("^[1-9]%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?$") then return false end
  if conf.tolerance_second < 0 then return true end
  return math.abs(time.now() - tonumber(text)) <= conf.tolerance_second
end

local function is_signed(conf, signatures, text)
  local expected = "v1," .. crypto.base64_encode(crypto.hmac("sha256", secrets.bytes(conf.secret_v1), text))
  local count, good = 0, false
  for signature in signatures:gmatch("%S+") do
    count = count + 1
    if count > MOST_SIGNATURES then return false end
    good = crypto.equal(signature, expected) or good
  end
  return good
end

function webhooks.access(conf, exchange)
  local request, response = exchange.request, exchange.response
  local id, at = only(request, "webhook-id"), only(request, "webhook-timestamp")
  local signatures = only(request, "webhook-signature")
  if not id or not at or not signatures or not is_timely(conf, at) then response:error(400) end
  local body = request:get_raw_body()
  if not body then response:error(413, "Request body is too large") end
  if body == "" or not is_signed(conf, signatures, id .. "." .. at .. "." .. body) then response:error(400) end
end

return webhooks
