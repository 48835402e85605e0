-- SPDX-License-Identifier: Apache-2.0
-- The core's router over plain tables, outside a worker: for `sluice explain` and for specs.
--
--   local routes = router.new(C, { { paths = { "/a" }, methods = { "GET" } } })
--   routes:match { method = "GET", host = "x.example", path = "/a/b", scheme = "http" }
--     --> { outcome = "found", route = 1, path = "/a", path_len = 2, captures = {} }
local ffi = require "ffi"

local router = {}
router.__index = router

local outcomes = { [0] = "nothing", "found", "needs_tls", "overrun", "ambiguous" }
local verdicts = { [0] = "unset", "matched", "failed" }
local protocol_bits = { http = "HTTP", https = "HTTPS", grpc = "GRPC", grpcs = "GRPCS", ws = "WS", wss = "WSS" }

local UNSET = 0xffffffff

-- The functions of router.h and uri.h: declared by the text of those headers that is part of the program, unless a spec
-- has declared them from the files.
function router.library()
  local known, size = pcall(ffi.sizeof, "struct router_result") -- a name alone has no size
  if known and size then return ffi.C end
  local C = require("sluice.ffi").C
  ffi.cdef "extern const char router_declarations[];"
  ffi.cdef(ffi.string(C.router_declarations))
  return C
end

local function text(slice)
  if slice.len == 0 then return nil end
  return ffi.string(slice.data, slice.len)
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map or {}) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- Lists every (kind, value) of a route in the order in which the core wants them.
local function matches_of(C, route)
  local matches = {}
  local function add(kind, values)
    for _, value in ipairs(type(values) == "table" and values or {}) do matches[#matches + 1] = { kind, value } end
  end
  add(C.MATCH_METHOD, route.methods)
  add(C.MATCH_HOST, route.hosts)
  add(C.MATCH_PATH, route.paths)
  add(C.MATCH_SNI, route.snis)
  for _, name in ipairs(type(route.headers) == "table" and sorted_keys(route.headers) or {}) do
    add(C.MATCH_HEADER_NAME, { name })
    add(C.MATCH_HEADER_VALUE, route.headers[name])
  end
  return matches
end

local function protocols_of(C, route)
  local bits = 0
  for _, name in ipairs(route.protocols or {}) do
    local bit_name = protocol_bits[name]
    if bit_name then bits = bits + tonumber(C["PROTOCOL_" .. bit_name]) end
  end
  return bits
end

function router:add(route)
  local C = self.C
  local conf = ffi.new("struct router_route", {
    protocols = protocols_of(C, route),
    regex_priority = route.regex_priority or 0,
    created_at = route.created_at or 0,
  })
  local index = C.router_add(self.handle, conf)
  if index < 0 then return nil, "no memory for a route" end
  local failure = ffi.new("struct error")
  for _, match in ipairs(matches_of(C, route)) do
    if C.router_add_match(self.handle, index, match[1], match[2], #match[2], failure) < 0 then
      return nil, ffi.string(failure.text)
    end
  end
  return index
end

-- Compiles to the end. Gives how many slices of `budget_us` it took.
function router:compile(budget_us)
  local slices = 0
  repeat
    local status = self.C.router_compile(self.handle, budget_us or 1e6)
    if status < 0 then return nil, "no memory to compile the routes" end
    slices = slices + 1
  until status == 0
  return slices
end

-- `C` holds the functions of router.h. Fails with the reason and the number of the route.
function router.new(C, routes)
  local self = setmetatable({ C = C, handle = ffi.gc(C.router_new(), C.router_free) }, router)
  for number, route in ipairs(routes or {}) do
    local _, err = self:add(route)
    if err then return nil, err, number end
  end
  if routes then
    local _, err = self:compile()
    if err then return nil, err end
  end
  return self
end

local function fields_of(headers)
  local texts = {}
  for _, name in ipairs(sorted_keys(headers)) do
    local values = headers[name]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      texts[#texts + 1] = name
      texts[#texts + 1] = value
    end
  end
  local pairs_array = ffi.new("struct slice[?]", math.max(#texts, 1))
  for i, value in ipairs(texts) do pairs_array[i - 1] = { value, #value } end
  return ffi.new("struct router_fields", { pairs_array, #texts / 2 }), { texts, pairs_array }
end

local function slice_of(value)
  value = value or ""
  return ffi.new("struct slice", { value, #value })
end

-- What the core reads, and the values that it points to: the caller holds on to these until it has been read.
function router:request(of)
  local secure = of.scheme == "https"
  local fields, anchors = fields_of(of.headers)
  local request = ffi.new("struct router_request", {
    method = slice_of(of.method or "GET"),
    host = slice_of(of.host),
    path = slice_of(of.path or "/"),
    sni = slice_of(of.sni),
    port = of.port or (secure and 443 or 80),
    tls = of.tls == nil and secure or of.tls or false,
    secure = secure,
    header = self.C.router_field,
    context = fields,
  })
  anchors[#anchors + 1] = { of, fields }
  return request, anchors
end

local function span_text(path, span)
  if span.from == UNSET then return nil end
  return path:sub(span.from + 1, span.to)
end

function router:captures(path, result)
  local captures = {}
  for i = 1, result.group_count do captures[i] = span_text(path, result.groups[i - 1]) or false end
  local name, group = ffi.new("struct slice[1]"), ffi.new("uint32_t[1]")
  local index = 0
  while self.C.router_capture_name(self.handle, result.regex, index, name, group) do
    captures[text(name[0])] = captures[group[0]]
    index = index + 1
  end
  return captures
end

function router:match(of)
  local request, anchors = self:request(of)
  local result = ffi.new("struct router_result")
  local outcome = outcomes[tonumber(self.C.router_match(self.handle, request, result))]
  anchors[1] = nil
  if outcome == "nothing" then return { outcome = outcome } end
  return {
    outcome = outcome,
    route = result.route,
    path = text(result.path),
    path_len = result.path_len,
    host = text(result.host),
    captures = self:captures(of.path or "/", result),
  }
end

-- How each attribute of one route fares: "unset", "matched" or "failed".
function router:explain(of, route)
  local request, anchors = self:request(of)
  local reasons = ffi.new("struct router_reasons")
  self.C.router_explain(self.handle, request, route, reasons)
  anchors[1] = nil
  return {
    methods = verdicts[reasons.methods],
    hosts = verdicts[reasons.hosts],
    paths = verdicts[reasons.paths],
    headers = verdicts[reasons.headers],
    snis = verdicts[reasons.snis],
    tls_missing = reasons.tls_missing,
    host = text(reasons.host),
    path = text(reasons.path),
    header = text(reasons.header),
    priority = reasons.priority,
  }
end

-- The path that goes upstream.
function router.upstream_path(C, service_path, path, matched_len, strip, v1)
  local room = #service_path + #path + 1
  local buffer = ffi.new("char[?]", room)
  local len = C.router_upstream_path(slice_of(service_path), slice_of(path), matched_len, strip, v1, buffer, room)
  return ffi.string(buffer, len)
end

return router
