-- SPDX-License-Identifier: Apache-2.0
-- Listening addresses in Kong's syntax: "0.0.0.0:8443 ssl http2", several in a list or behind commas, or "off".
local address = require "sluice.config.address"
local suggest = require "sluice.config.suggest"

local listen = {}

local HTTP_FLAGS = { "ssl", "http2", "proxy_protocol", "deferred", "bind", "reuseport" }
local STREAM_FLAGS = { "ssl", "proxy_protocol", "deferred", "bind", "reuseport" }
local IMPLIED = { deferred = true, bind = true, reuseport = true } -- accepted and without effect: always so, or moot

local function flag(word, names)
  for _, name in ipairs(names) do
    if name == word then return IMPLIED[word] and "" or word end
  end
  if word:find("^backlog=%d+$") then return word end
  if word:find("^ipv6only=o[nf]+$") or word:find("^so_keepalive=") then return "" end
  if word == "udp" then return nil, "a flag for TCP (UDP is not carried)", word end
  return nil, "a known flag" .. suggest.phrase(word, names), word
end

local function place(text)
  local path = text:match("^unix:(/.+)$")
  if path then return text end
  text = text:gsub("^%*:", "0.0.0.0:"):gsub("^localhost:", "127.0.0.1:")
  local host, port = address.split(text)
  if not host or not port or not address.is_ip(host) then return nil end
  return address.join(host, port)
end

-- One listener normalised: "ADDRESS:PORT flags"; nil, expected, found.
local function parse_one(text, flags)
  local words = {}
  for word in text:gmatch("%S+") do words[#words + 1] = word end
  local where = words[1] and place(words[1])
  if not where then return nil, "an address and port such as 0.0.0.0:8000", '"' .. text .. '"' end
  local result = { where }
  for i = 2, #words do
    local kept, expected, found = flag(words[i], flags)
    if not kept then return nil, expected, '"' .. found .. '"' end
    if kept ~= "" then result[#result + 1] = kept end
  end
  return table.concat(result, " ")
end

-- The listeners of a value: a text, a list of texts, "off" or false. Returns a list (empty: off); or nil, expected,
-- found, and the index in the list. `streams`: for TCP and TLS, where flags of HTTP have no meaning.
function listen.parse(value, streams)
  if value == false or value == "off" then return {} end
  if type(value) == "string" then
    local list = {}
    for part in value:gmatch("[^,]+") do list[#list + 1] = part end
    value = list
  end
  local result = {}
  for i, text in ipairs(value) do
    if text ~= "off" then
      local one, expected, found = parse_one(text, streams and STREAM_FLAGS or HTTP_FLAGS)
      if not one then return nil, expected, found, i end
      result[#result + 1] = one
    end
  end
  return result
end

return listen
