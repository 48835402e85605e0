-- SPDX-License-Identifier: Apache-2.0
-- `sluice explain tcp|tls HOST:PORT`: which route takes a stream, and what happens to it.
local address = require "sluice.config.address"
local ffi = require "ffi"
local ip = require "sluice.ip"
local plan = require "sluice.plan"
local report = require "sluice.cli.explain.report"
local router = require "sluice.cli.router"

local stream = {}

local PROTOCOLS = { tcp = 64, tls = 128, tls_passthrough = 256 } -- PROTOCOL_* of bridge.h
local OFFERED = { tcp = 64, tls = 128 + 256 }
local NOWHERE = "\0\0\0\0" -- the address of a name is not known here: routes that ask for one do not fit

---@param word string the first argument
---@return boolean
function stream.is_meant(word)
  return OFFERED[word:lower()] ~= nil
end

local function library()
  local C = router.library()
  local known, size = pcall(ffi.sizeof, "struct stream_request")
  if not (known and size) then
    ffi.cdef "extern const char stream_router_declarations[];"
    ffi.cdef(ffi.string(C.stream_router_declarations))
  end
  return C
end

local function slice(text)
  return ffi.new("struct slice", { text, #text })
end

-- As the kernel has it; the text is to be held on to.
local function socket_address(bytes, port)
  local big_endian = string.char(math.floor(port / 256), port % 256)
  if #bytes == 4 then return "\2\0" .. big_endian .. bytes .. ("\0"):rep(8) end
  return "\10\0" .. big_endian .. "\0\0\0\0" .. bytes .. "\0\0\0\0"
end

local function place(text, what)
  local host, port = address.split(text)
  if not host then return nil, ("expected %s, found %s"):format(what, text) end
  return { host = host, port = port or 0, bytes = ip.parse(host) }
end

-- ---- Finding ------------------------------------------------------------------------------------------------------

local function ends_text(one)
  return ("%s %d"):format(one.ip or "*", one.port or 0)
end

local function add(C, routes, index, route)
  local failure, mask = ffi.new("struct error"), 0
  for _, name in ipairs(route.protocols) do mask = mask + (PROTOCOLS[name] or 0) end
  if C.stream_router_add(routes, index, mask, route.created_at or 0) < 0 then return nil, "no memory for a route" end
  local texts = {}
  for _, name in ipairs(route.snis or {}) do texts[#texts + 1] = { C.MATCH_SNI, name } end
  for _, one in ipairs(route.sources or {}) do texts[#texts + 1] = { C.MATCH_SOURCE, ends_text(one) } end
  for _, one in ipairs(route.destinations or {}) do texts[#texts + 1] = { C.MATCH_DESTINATION, ends_text(one) } end
  for _, match in ipairs(texts) do
    if C.stream_router_add_match(routes, match[1], slice(match[2]), failure) < 0 then
      return nil, ("route %s: %s"):format(route.name or route.id, ffi.string(failure.text))
    end
  end
  return true
end

local function find(routes, protocol, to, from)
  local C = library()
  local compiled = ffi.gc(C.stream_router_new(), C.stream_router_free)
  for index, route in ipairs(routes) do
    local ok, err = add(C, compiled, index, route)
    if not ok then return nil, err end
  end
  local sni = protocol == "tls" and not to.bytes and to.host:lower():gsub("%.$", "") or ""
  local source, destination = socket_address(from.bytes, from.port), socket_address(to.bytes or NOWHERE, to.port)
  local request = ffi.new("struct stream_request", { protocols = OFFERED[protocol], sni = slice(sni),
    source = ffi.cast("const struct sockaddr *", source),
    destination = ffi.cast("const struct sockaddr *", destination) })
  local used = ffi.new("uint32_t[1]")
  local found = C.stream_router_find(compiled, request, used)
  return { route = routes[found], passes = used[0] == PROTOCOLS.tls_passthrough, sni = sni, anchors = { source,
    destination } }
end

-- ---- Telling ------------------------------------------------------------------------------------------------------

local function values(list)
  local texts = {}
  for i, one in ipairs(list) do
    texts[i] = type(one) == "string" and one or (one.ip or "any address") .. (one.port and " port " .. one.port or "")
  end
  return table.concat(texts, ", ")
end

local function put_route(out, found)
  out[#out + 1] = "\nroute     " .. (found.route.name or found.route.id)
  for _, field in ipairs { "snis", "sources", "destinations" } do
    local asked = found.route[field]
    out[#out + 1] = ("  %-12s %s"):format(field, asked and asked[1] and "among " .. values(asked) or "not asked for")
  end
  if found.passes then out[#out + 1] = "  TLS is passed through" end
end

local function active_routes(known)
  local active = {}
  for _, route in ipairs(known.routes) do
    local service = known.by_id[route.service]
    local enabled = not service or service.enabled ~= false
    if enabled and plan.is_stream(route.protocols) then active[#active + 1] = route end
  end
  return active
end

-- The whole answer as text, and whether a route takes the stream; nil, reason.
---@param known table from sluice.cli.explain.entities
---@param protocol string "tcp" or "tls"
---@param destination string "HOST:PORT"
---@param source? string "ADDRESS:PORT"
function stream.text(known, protocol, destination, source)
  protocol = protocol:lower()
  local to, wrong = place(destination, "HOST:PORT")
  if not to then return nil, wrong end
  local from, err = place(source or "127.0.0.1:40000", "an address behind --from")
  if not from or not from.bytes then return nil, err or "expected an address behind --from, found " .. source end
  local routes = active_routes(known)
  local found, why = find(routes, protocol, to, from)
  if not found then return nil, why end
  local out = { ("%s %s from %s"):format(protocol, destination, from.host) }
  out[2] = ("  of %d route%s of streams, from %s"):format(#routes, #routes == 1 and "" or "s", known.source)
  if found.route then
    put_route(out, found)
    report.put_plugins(out, { known = known, route = found.route })
    report.put_service(out, known, found.route)
  else
    out[#out + 1] = "\nno route takes it: it is closed"
  end
  return table.concat(out, "\n") .. "\n", found.route ~= nil
end

return stream
