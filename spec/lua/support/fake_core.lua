-- SPDX-License-Identifier: Apache-2.0
-- A stand-in for the core, for specs of what Lua does with what C answers: texts, numbers and fields of one exchange
-- as Lua tables. It knows no protocol: what a gateway does with all this is shown by specs against the real core.

local ffi = require "ffi"

local fake = {}

local function cdef_bridge()
  local known, size = pcall(ffi.sizeof, "struct board") -- a name alone has no size
  if known and size then return end
  local file = assert(io.open("core/bridge.h"))
  local text = file:read("*a")
  file:close()
  ffi.cdef((text:gsub("#[^\n]*\n", "\n")))
end

local WORKER

local function put(out, text)
  fake.kept[#fake.kept + 1] = text -- the core owns what it answers with
  out[0].data, out[0].len = text, #text
  return 0
end

local function same(a, b)
  return a:lower() == b:lower()
end

local function fields(message)
  return fake.fields[tonumber(message)]
end

local function remove(list, name)
  for i = #list, 1, -1 do
    if same(list[i][1], name) then table.remove(list, i) end
  end
end

local C = {}

function C.bridge_error() return fake.error end
function C.bridge_board() return fake.board end
function C.bridge_self() return 0 end
function C.bridge_worker_id() return fake.worker_id end
function C.bridge_now() return fake.now end
function C.bridge_mono() return fake.now end

function C.bridge_text(_, _, what, out)
  local text = fake.texts[tonumber(what)]
  return text and put(out, text) or 2
end

function C.bridge_text_set(_, _, what, text)
  fake.texts[tonumber(what)] = text
  return 0
end

function C.bridge_number(_, _, what) return fake.numbers[tonumber(what)] or 0 / 0 end

function C.bridge_number_set(_, _, what, value)
  fake.numbers[tonumber(what)] = value
  return 0
end

function C.bridge_capture(_, _, index, out)
  local value = fake.captures[tonumber(index)]
  return value and put(out, value) or 2
end

function C.bridge_capture_name(_, _, index, name, group)
  local found = fake.capture_names[tonumber(index) + 1]
  if not found then return 2 end
  group[0] = found[2]
  return put(name, found[1])
end

function C.bridge_header_count(_, _, message) return #fields(message) end

function C.bridge_header_at(_, _, message, index, name, value)
  local field = fields(message)[tonumber(index) + 1]
  if not field then return 2 end
  put(name, field[1])
  return put(value, field[2])
end

function C.bridge_header_get(_, _, message, name, _, nth, out)
  for _, field in ipairs(fields(message)) do
    if same(field[1], name) then
      if nth == 0 then return put(out, field[2]) end
      nth = nth - 1
    end
  end
  return 2
end

function C.bridge_header_set(_, _, message, name, _, value)
  remove(fields(message), name)
  table.insert(fields(message), { name, value })
  return 0
end

function C.bridge_field_name() return 0 end

function C.bridge_header_add(_, _, message, name, _, value)
  table.insert(fields(message), { name, value })
  return 0
end

function C.bridge_header_clear(_, _, message, name)
  remove(fields(message), name)
  return 0
end

function C.bridge_header_clear_alike(_, _, message, name)
  local list, wanted = fields(message), name:lower():gsub("%W", "-")
  for i = #list, 1, -1 do
    if list[i][1]:lower():gsub("%W", "-") == wanted then table.remove(list, i) end
  end
  return 0
end

function C.bridge_identity_clear()
  local list = fields(0) -- MESSAGE_REQUEST
  for i = #list, 1, -1 do
    local name = list[i][1]:lower():gsub("%W", "-")
    if name:find("^x%-consumer%-") or name:find("^x%-credential%-") or name == "x-anonymous-consumer" then
      table.remove(list, i)
    end
  end
  return 0
end

function C.bridge_identity_set(_, _, identity)
  local it = identity[0]
  local function tell(name, value)
    if value.data ~= nil then table.insert(fields(0), { name, ffi.string(value.data, value.len) }) end
  end
  C.bridge_identity_clear()
  tell("X-Consumer-ID", it.consumer_id)
  tell("X-Consumer-Custom-ID", it.consumer_custom_id)
  tell("X-Consumer-Username", it.consumer_username)
  tell("X-Credential-Identifier", it.credential)
  if it.anonymous then table.insert(fields(0), { "X-Anonymous-Consumer", "true" }) end
  return 0
end

function C.bridge_body(_, _, message, out)
  local body = fake.bodies[tonumber(message)]
  return body and put(out, body) or 2
end

function C.bridge_body_set(_, _, message, data)
  fake.bodies[tonumber(message)] = data
  return 0
end

function C.bridge_exit(_, _, status, body)
  fake.answer = { status = status, body = body }
  return 0
end

function C.bridge_exit_message() return 0 end

function C.bridge_exit_error(_, _, status, message)
  fake.answer = { status = status, message = message }
  return 0
end

function C.bridge_try(_, _, index, out)
  local try = fake.tries[tonumber(index) + 1]
  if not try then return 2 end
  out[0].port, out[0].status, out[0].answered, out[0].begun_us = try.port, try.status, try.answered, try.begun_us
  out[0].ip.data, out[0].ip.len = try.ip, #try.ip
  return 0
end

function C.bridge_service_target(_, _, host, _, port)
  fake.target = { host = host, port = port }
  return 0
end

function C.bridge_service_upstream(_, _, name) return fake.upstreams[name] and 0 or 2 end

function C.bridge_service_tls_verify(_, _, verify)
  fake.tls_verify = verify
  return 0
end

function C.bridge_random(_, out, len)
  for i = 0, len - 1 do out[i] = math.random(0, 255) - 128 end
  return 0
end

function C.bridge_timer(_, id, seconds)
  fake.timers[id] = seconds
  return 0
end

function C.bridge_timer_cancel(_, id)
  fake.timers[id] = nil
  return 0
end

function C.bridge_log(_, level, message, cells, count)
  local facts = {}
  for i = 0, tonumber(count) - 1 do facts[ffi.string(cells[i * 2])] = ffi.string(cells[i * 2 + 1]) end
  table.insert(fake.log, { level = level, message = message, facts = facts })
end

-- An exchange as fresh as one that has just arrived.
function fake.reset()
  fake.kept, fake.texts, fake.numbers, fake.bodies = {}, {}, {}, {}
  fake.fields = { [0] = {}, {}, {} }
  fake.captures, fake.capture_names, fake.upstreams, fake.tries = {}, {}, {}, {}
  fake.worker_id = 1
  fake.timers, fake.log, fake.answer, fake.now = {}, {}, nil, 1700000000
end

-- Takes the core's place; what had been loaded with another one is loaded anew. Undone by `remove`.
function fake.install()
  cdef_bridge()
  WORKER = WORKER or ffi.cast("struct worker *", 1)
  fake.board = fake.board or ffi.new("struct board")
  fake.outside = {}
  for name, module in pairs(package.loaded) do
    if name == "sluice" or name:find("^sluice%.") then fake.outside[name] = module end
  end
  for name in pairs(fake.outside) do package.loaded[name] = nil end
  package.loaded["sluice.ffi"] = { C = C, worker = WORKER, home = ".", on_error = debug.traceback }
  fake.reset()
  return fake
end

function fake.remove()
  for name in pairs(package.loaded) do
    if name == "sluice" or name:find("^sluice%.") then package.loaded[name] = nil end
  end
  for name, module in pairs(fake.outside) do package.loaded[name] = module end
end

fake.C = C

return fake
