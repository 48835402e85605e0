-- SPDX-License-Identifier: Apache-2.0
-- Requests that a plugin makes of the service that it stands at, by itself: through the plugins of the service and the
-- global ones, its upstream's balancing, health and circuits, retries and time-outs, as a client's would go. A plugin
-- that does so says it by `calls_service = true` in its handler.
--
--   local response, err, code = calls.call(conf, { method = "POST", path = "/orders", body = value, timeout = 10 })

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local ffi_string, lower, tonumber = ffi.string, string.lower, tonumber

---@class sluice.calls
local calls = {}

local OK, AGAIN, STALE = 0, 1, -1
local HEADERS_MAX = 500
local DEFAULT_TIMEOUT, DEFAULT_BODY = 60, 1024 * 1024

local options_cell = ffi.new("struct call_options")
local header_cells = ffi.new("struct bytes[?]", HEADERS_MAX * 2)
local result = ffi.new("struct call_result")
local name_cell, value_cell = ffi.new("struct bytes[1]"), ffi.new("struct bytes[1]")

-- The way of an instance in the running generation; nil: it is not, or no more, the one of that configuration.
local function way_of(conf)
  local runtime = require "sluice.runtime"
  local held = runtime.generations[runtime.live or 0]
  local way = held and held.ways[conf.__plugin_id or ""]
  if way and way.config == conf then return way, held.id end
  return nil
end

-- Whether the instance is one of the running generation.
---@param conf table
---@return boolean
function calls.is_live(conf)
  return way_of(conf) ~= nil
end

-- The service that the instance stands at, as the configuration has it.
---@param conf table
---@return table|nil
function calls.service(conf)
  local way = way_of(conf)
  return way and way.service
end

local function lay(cell, text)
  cell.data, cell.len = text, #text
end

local function lay_headers(headers)
  if #headers > HEADERS_MAX then check.fail("calls.call", "headers: more than " .. HEADERS_MAX, 4) end
  for i = 1, #headers do
    lay(header_cells[2 * i - 2], headers[i][1])
    lay(header_cells[2 * i - 1], headers[i][2])
  end
  return #headers
end

local function body_of(call)
  local fields, index = {}, 0
  while C.bridge_call_field(worker, call, index, name_cell, value_cell) == OK do
    local name = lower(ffi_string(name_cell[0].data, name_cell[0].len))
    local value = ffi_string(value_cell[0].data, value_cell[0].len)
    fields[name] = fields[name] and fields[name] .. ", " .. value or value
    index = index + 1
  end
  local body = result.body
  return fields, body.data ~= nil and ffi_string(body.data, body.len) or ""
end

local function response_of(call)
  C.bridge_call_result(worker, call, result)
  if result.status == 0 then return nil, "the call was broken off", "failed" end
  if result.failed then return nil, "the response broke off", "failed" end
  local status, by_service, truncated = result.status, result.by_service, result.truncated
  local headers, body = body_of(call)
  return { status = status, headers = headers, body = body, by_service = by_service, truncated = truncated }
end

local function wait(call, seconds)
  local status = C.bridge_call_wait(worker, call, seconds)
  if status == AGAIN then status = core.wait(status) end
  if status ~= OK then return nil, "no response in time", "timeout" end
  return response_of(call)
end

-- One that a plugin forgot, since it failed meanwhile, ends when it is collected.
local function keep(call)
  return ffi.gc(ffi.new("double[1]", call), function(cell) C.bridge_call_end(worker, cell[0]) end)
end

local function open(way, generation, request, still)
  local headers = { { "Host", way.service.host }, unpack(request.headers or {}) }
  options_cell.generation, options_cell.route = generation, way.route
  lay(options_cell.method, request.method or "GET")
  lay(options_cell.target, request.path or "/")
  options_cell.header_count = lay_headers(headers)
  options_cell.headers = header_cells
  options_cell.body.data, options_cell.body.len = request.body, request.body and #request.body or 0
  options_cell.max_body = request.max_body or DEFAULT_BODY
  options_cell.still = still
  local call = tonumber(C.bridge_call(worker, options_cell))
  if call > 0 then return call end
  if call == STALE then return nil, "another configuration comes into use", "gone" end
  return nil, core.reason(call), "full"
end

local function begin(conf, request, still)
  local way, generation = way_of(conf)
  if not way then return nil, "the plugin's instance is no longer in use", "gone" end
  return open(way, generation, request, still)
end

-- Whether the plugins of the service, and the global ones, have a phase of records.
---@param conf table of the plugin's instance
---@param phase integer
---@return boolean
function calls.has_phase(conf, phase)
  local way, generation = way_of(conf)
  return way ~= nil and require("sluice.runtime").record_list_at(generation, way.route, phase) ~= nil
end

local NO_REQUEST = {}

-- Runs a phase of records for a record that no request brought, in the plugins of the service and the global ones: in
-- an exchange of the way that calls go, which sends nothing.
---@param conf table of the plugin's instance
---@param phase integer
---@param record sluice.kafka.record
---@return table|nil record as `sluice.runtime` has it
---@return any failure
---@return "gone"|"full"|nil code why the phase could not be run
function calls.run_record(conf, phase, record)
  local runtime = require "sluice.runtime"
  local way, generation = way_of(conf)
  local call, err, code = begin(conf, NO_REQUEST, true)
  if not call then return nil, err, code end
  local held = keep(call)
  local exchange = tonumber(C.bridge_call_exchange(worker, call))
  local out, failure = runtime.run_record_at(generation, way.route, phase, exchange, record)
  C.bridge_call_end(worker, ffi.gc(held, nil)[0])
  return out, failure
end

---@class sluice.calls.response
---@field status integer
---@field headers table<string, string> by lower-case name, values joined
---@field body string
---@field by_service boolean false when the gateway answered, as it does when the service cannot be reached
---@field truncated boolean the body was longer

-- Calls the service and waits for the whole response.
---@param conf table of the plugin's instance
---@param request { method?: string, path?: string, headers?: { [1]: string, [2]: string }[], body?: string,
--- timeout?: number, max_body?: integer } `path` with its query, behind the service's own; `timeout`: seconds for all
--- of it, 60 unless told (the service's own time-outs hold beside it); `max_body`: bytes of the response's body that
--- are kept
---@return sluice.calls.response|nil
---@return string|nil err
---@return "timeout"|"failed"|"full"|"gone"|nil code "gone": the instance is no longer in use
function calls.call(conf, request)
  check.table("calls.call", "conf", conf)
  check.table("calls.call", "request", request)
  check.string_or_nil("calls.call", "body", request.body)
  local call, err, code = begin(conf, request, false)
  if not call then return nil, err, code end
  local held = keep(call)
  local response
  response, err, code = wait(call, request.timeout or DEFAULT_TIMEOUT)
  C.bridge_call_end(worker, ffi.gc(held, nil)[0])
  return response, err, code
end

return calls
