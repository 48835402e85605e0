-- SPDX-License-Identifier: Apache-2.0
-- The last part of a status resource's path: all that is needed to find the reply, so that a worker that has never
-- heard of the request can, or a gateway that was started behind it.
--
--   9f0c...e1-9NfLtgYAKQE    the correlation id, and in base64url numbers of seven bits a byte: when the request was
--                            made (seconds), then for each partition of the reply topic the offset that it stood at
--
-- A reply cannot stand before those offsets. What is in it is no secret, but the id cannot be guessed; with a secret
-- that all gateways have it is signed, so that nobody can have the topic looked through for ids that were never given.
local crypto = require("sluice").crypto

local ticket = {}

local ID_BYTES = 16
local PARTITIONS_MAX = 256 -- of more, those behind are looked through from their beginning
local NUMBER_BYTES = 8     -- 2^53 takes no more
local TAG_BYTES = 16

local function put_number(out, value)
  while value >= 128 do
    out[#out + 1] = string.char(value % 128 + 128)
    value = math.floor(value / 128)
  end
  out[#out + 1] = string.char(value)
end

local function take_number(bytes, at)
  local value, scale = 0, 1
  for i = at, at + NUMBER_BYTES - 1 do
    local byte = bytes:byte(i)
    if not byte then return nil end
    value = value + byte % 128 * scale
    if byte < 128 then return value < 2 ^ 53 and value or nil, i + 1 end
    scale = scale * 128
  end
  return nil
end

---@return string a correlation id that nobody can guess
function ticket.new_id()
  return (crypto.hex(crypto.random(ID_BYTES)))
end

local function tag_of(secret, id, bytes)
  return crypto.hmac("sha256", secret, id .. bytes):sub(1, TAG_BYTES)
end

---@param id string
---@param moment number seconds since 1970
---@param positions table<integer, integer> of the reply topic, by partition
---@param secret? string
---@return string
function ticket.write(id, moment, positions, secret)
  local out = {}
  put_number(out, math.floor(moment))
  for partition = 0, PARTITIONS_MAX - 1 do
    if not positions[partition] then break end
    put_number(out, math.max(0, positions[partition]))
  end
  local bytes = table.concat(out)
  return id .. "-" .. crypto.base64url_encode(bytes .. (secret and tag_of(secret, id, bytes) or ""))
end

-- The numbers behind the id; nil: they are none.
local function numbers_in(bytes)
  local moment, at = take_number(bytes, 1)
  if not moment then return nil end
  local positions, partition = {}, 0
  while at <= #bytes do
    if partition == PARTITIONS_MAX then return nil end
    positions[partition], at = take_number(bytes, at)
    if not at then return nil end
    partition = partition + 1
  end
  return moment, positions
end

---@param text string
---@param secret? string
---@return { id: string, moment: number, positions: table<integer, integer> }|false|nil nil: it is none; false: it is
--- not one of ours
function ticket.read(text, secret)
  local id, rest = text:match("^(%x+)%-([%w_-]+)$")
  if not id or #id ~= 2 * ID_BYTES or id:lower() ~= id or #rest > 4 * PARTITIONS_MAX * NUMBER_BYTES then return nil end
  local bytes = crypto.base64url_decode(rest)
  if not bytes then return nil end
  if secret then
    local tag = bytes:sub(-TAG_BYTES)
    bytes = bytes:sub(1, -TAG_BYTES - 1)
    if #tag < TAG_BYTES or not crypto.equal(tag, tag_of(secret, id, bytes)) then return false end
  end
  local moment, positions = numbers_in(bytes)
  if not moment then return nil end
  return { id = id, moment = moment, positions = positions }
end

return ticket
