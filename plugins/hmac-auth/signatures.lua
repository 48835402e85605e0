-- SPDX-License-Identifier: Apache-2.0
-- Signatures as Kong has them, after draft-cavage-http-signatures:
--
--   Authorization: hmac username="alice", algorithm="hmac-sha256", headers="date @request-target", signature="..."
--
-- The signature is the base64 of the HMAC of one line for each name under `headers`, in their order:
--
--   date: Mon, 23 Nov 2026 14:00:00 GMT      the field of that name
--   @request-target: get /path?query         method in lower case, and path with query, as sent
--   GET /path?query HTTP/1.1                 for `request-line`
--   x-none:                                  a field that the request does not have
local crypto = require "sluice.crypto"

local signatures = {}

local MOST_NAMES = 100
local MOST_VALUES = 1000 -- of one name

-- What a field says of a signature; nil when it says nothing, or something twice.
---@param value string
---@return { username: string, algorithm: string, signature: string, names: string[], signs: table }|nil
function signatures.parse(value)
  local rest = value:match("^%s*[Hh][Mm][Aa][Cc]%s+(.*)$")
  if not rest then return nil end
  local found = {}
  for name, text in rest:gmatch('([%w_-]+)%s*=%s*"([^"]*)"') do
    if found[name] then return nil end
    found[name] = text
  end
  if not (found.username and found.algorithm and found.headers and found.signature) then return nil end
  found.names, found.signs = {}, {}
  for name in found.headers:gmatch("%S+") do
    if #found.names == MOST_NAMES then return nil end
    found.names[#found.names + 1] = name
    found.signs[name:lower()] = true
  end
  return found
end

-- All fields of a name as one value: none that the service may read is left out of the signature.
local function value_of(request, name)
  local value = request:get_header(name)
  if not value then return nil end
  local another = request:get_header(name, 2)
  if not another then return value end
  local values = { value, another }
  for nth = 3, MOST_VALUES do
    local more = request:get_header(name, nth)
    if not more then break end
    values[nth] = more
  end
  return table.concat(values, ", ")
end

local special = {}

special["@request-target"] = function(request)
  return ("@request-target: %s %s"):format(request:get_method():lower(), request:get_path_with_query())
end

special["request-line"] = function(request, version)
  return ("%s %s HTTP/%s"):format(request:get_method(), request:get_path_with_query(), version)
end

local function line_of(request, name, version)
  local value = value_of(request, name)
  if value then return name .. ": " .. value end
  local make = special[name:lower()]
  return make and make(request, version) or name .. ":"
end

local function text_of(request, names, version)
  local lines = {}
  for i = 1, #names do lines[i] = line_of(request, names[i], version) end
  return table.concat(lines, "\n")
end

-- Whether the secret made the signature of this request.
---@param request sluice.request
---@param parameters table from `parse`
---@param secret string
---@return boolean
function signatures.is_good(request, parameters, secret)
  local given = crypto.base64_decode(parameters.signature)
  local kind = parameters.algorithm:match("^hmac%-(sha%d+)$")
  if not given or not kind then return false end
  local version = request:get_http_version()
  local made = crypto.hmac(kind, secret, text_of(request, parameters.names, ("%.1f"):format(version)))
  if crypto.equal(made, given) then return true end
  -- HTTP/2 has no request line; clients write one either way.
  if version < 2 or not parameters.signs["request-line"] then return false end
  made = crypto.hmac(kind, secret, text_of(request, parameters.names, ("%d"):format(version)))
  return crypto.equal(made, given)
end

return signatures
