-- SPDX-License-Identifier: Apache-2.0
-- Texts that name places on a network: hosts, addresses, ports, and pairs of them.
local address = {}

function address.is_ipv4(text)
  local a, b, c, d = text:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
  return a ~= nil and tonumber(a) < 256 and tonumber(b) < 256 and tonumber(c) < 256 and tonumber(d) < 256
end

local function count_groups(text)
  local groups = 0
  for group in (text .. ":"):gmatch("([^:]*):") do
    if not group:find("^%x%x?%x?%x?$") then return nil end
    groups = groups + 1
  end
  return groups
end

-- An IPv6 address without brackets; its tail may be in IPv4's form.
function address.is_ipv6(text)
  if not text:find(":", 1, true) or text:find(":::", 1, true) then return false end
  local head, tail = text:match("^(.*:)(%d+%.%d+%.%d+%.%d+)$")
  if head then
    if not address.is_ipv4(tail) then return false end
    text = head .. "0:0"
  end
  local left, right = text:match("^(.-)::(.*)$")
  if not left then return count_groups(text) == 8 end
  if right:find("::", 1, true) then return false end
  local total = 0
  for _, part in ipairs { left, right } do
    local groups = part == "" and 0 or count_groups(part)
    if not groups then return false end
    total = total + groups
  end
  return total < 8
end

function address.is_ip(text)
  return address.is_ipv4(text) or address.is_ipv6(text)
end

-- "10.0.0.0/8", "fd00::/8", or an address alone.
function address.is_cidr(text)
  local ip, bits = text:match("^(.-)/(%d%d?%d?)$")
  if not ip then return address.is_ip(text) end
  if address.is_ipv4(ip) then return tonumber(bits) <= 32 end
  return address.is_ipv6(ip) and tonumber(bits) <= 128
end

-- A DNS name. Underscores pass, as service names in clusters have them.
function address.is_name(text)
  if #text == 0 or #text > 253 or text:find("..", 1, true) then return false end
  if text:find("^[%d.]+$") then return false end -- digits and dots only: a mistaken address
  for label in (text:gsub("%.$", "") .. "."):gmatch("([^.]*)%.") do
    if not label:find("^[%w_][%w_-]*$") or #label > 63 then return false end
  end
  return true
end

-- A name or an address; IPv6 with or without brackets.
function address.is_host(text)
  local inner = text:match("^%[(.*)%]$")
  if inner then return address.is_ipv6(inner) end
  return address.is_ip(text) or address.is_name(text)
end

-- Splits "host", "host:port", "[v6]", "[v6]:port" or a bare IPv6 address. Returns host (without brackets), port or nil;
-- or nil when it is none of these.
function address.split(text)
  local host, port = text:match("^%[(.*)%]:(%d+)$")
  if not host then host = text:match("^%[(.*)%]$") end
  if host then
    if not address.is_ipv6(host) then return nil end
  elseif address.is_ipv6(text) then
    host = text
  else
    host, port = text:match("^([^:]+):?(%d*)$")
    if not host or text:sub(-1) == ":" or not address.is_host(host) then return nil end
  end
  if port == "" then port = nil end
  port = port and tonumber(port)
  if port and (port > 65535 or port < 0) then return nil end
  return host, port
end

-- host and port as one text again.
function address.join(host, port)
  if host:find(":", 1, true) then host = "[" .. host .. "]" end
  return host .. ":" .. port
end

-- Splits "scheme://host:port/path". Returns a table with scheme, host, port and path (nil when absent); or nil.
function address.url(text)
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.+)$")
  if not scheme then return nil end
  local authority, path = rest:match("^([^/?#]+)(.*)$")
  if not authority or authority:find("@", 1, true) then return nil end
  local host, port = address.split(authority)
  if not host then return nil end
  return { scheme = scheme:lower(), host = host, port = port, path = path ~= "" and path or nil }
end

return address
