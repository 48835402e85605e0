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

local byte, find, lower, sub = string.byte, string.find, string.lower, string.sub
local SPACE, TAB, COMMA = 32, 9, 44
local MOST_NAMES = 100
local MOST_VALUES = 1000 -- of one name

-- Patterns do not compile, and a field is read with each request: so by the places of its marks.

-- Where something else than spaces, tabs and commas stands.
local function behind_gap(value, at)
  local code = byte(value, at)
  while code == SPACE or code == TAB or code == COMMA do
    at = at + 1
    code = byte(value, at)
  end
  return at
end

-- name="text" from `at` on: both, and where it goes on; nil at the end, or where there is something else.
local function next_parameter(value, at)
  at = behind_gap(value, at)
  local equals = find(value, '="', at, true)
  local close = equals and find(value, '"', equals + 2, true)
  if not close then return nil end
  return sub(value, at, equals - 1), sub(value, equals + 2, close - 1), close + 1
end

local function read_parameters(value, at)
  local found = {}
  local name, text, behind = next_parameter(value, at)
  while name do
    if found[name] then return nil end
    found[name] = text
    name, text, behind = next_parameter(value, behind)
  end
  return found
end

-- Names between spaces; nil when there are too many.
local function read_names(text)
  local names, signs, at, count = {}, {}, 1, 0
  while at <= #text do
    local space = find(text, " ", at, true) or #text + 1
    if space > at then
      count = count + 1
      if count > MOST_NAMES then return nil end
      names[count] = sub(text, at, space - 1)
      signs[lower(names[count])] = true
    end
    at = space + 1
  end
  return names, signs
end

-- What a field says of a signature; nil when it says nothing, or something twice.
---@param value string
---@return { username: string, algorithm: string, signature: string, names: string[], signs: table }|nil
function signatures.parse(value)
  local code = byte(value, 5)
  if code ~= SPACE and code ~= TAB or lower(sub(value, 1, 4)) ~= "hmac" then return nil end
  local found = read_parameters(value, 6)
  if not found or not (found.username and found.algorithm and found.headers and found.signature) then return nil end
  found.names, found.signs = read_names(found.headers)
  return found.names and found.names[1] and found or nil
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
  return "@request-target: " .. lower(request:get_method()) .. " " .. request:get_path_with_query()
end

special["request-line"] = function(request, version)
  return request:get_method() .. " " .. request:get_path_with_query() .. " HTTP/" .. version
end

local function line_of(request, name, version)
  local value = value_of(request, name)
  if value then return name .. ": " .. value end
  local make = special[lower(name)]
  return make and make(request, version) or name .. ":"
end

local function text_of(request, names, version)
  local text = line_of(request, names[1], version)
  for i = 2, #names do text = text .. "\n" .. line_of(request, names[i], version) end
  return text
end

local KINDS = { ["hmac-sha1"] = "sha1", ["hmac-sha224"] = "sha224", ["hmac-sha256"] = "sha256",
  ["hmac-sha384"] = "sha384", ["hmac-sha512"] = "sha512" }
local VERSIONS = { [1.0] = "1.0", [1.1] = "1.1" }

local function fits(request, parameters, secret, given, version)
  local made = crypto.hmac(KINDS[parameters.algorithm], secret, text_of(request, parameters.names, version))
  return crypto.equal(made, given)
end

-- Whether the secret made the signature of this request.
---@param request sluice.request
---@param parameters table from `parse`
---@param secret string
---@return boolean
function signatures.is_good(request, parameters, secret)
  local given = crypto.base64_decode(parameters.signature)
  if not given then return false end
  local version = VERSIONS[request:get_http_version()]
  if version then return fits(request, parameters, secret, given, version) end
  -- HTTP/2 has no request line; clients write one either way.
  return fits(request, parameters, secret, given, "2.0")
    or parameters.signs["request-line"] == true and fits(request, parameters, secret, given, "2")
end

return signatures
