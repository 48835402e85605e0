-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as a line in a file, as JSON or text.
local code = require "sluice.code"
local file = require "sluice.file"
local json = require "sluice.json"
local log = require "sluice.log"
local text = require "file-log.text"
local time = require "sluice.time"

local file_log = { version = "1.0.0", priority = 9 }

local SAY_EVERY_S = 10

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields, lines lost

local function compile(conf)
  local fields, compiler = {}, code.compiler()
  for name, lua in pairs(conf.custom_fields_by_lua or {}) do
    local chunk, why = compiler(lua, "custom_fields_by_lua." .. name)
    if not chunk then error(why, 0) end
    fields[#fields + 1] = { name = name, chunk = chunk }
  end
  table.sort(fields, function(a, b) return a.name < b.name end)
  return { fields = fields, lost = 0, said_at = 0 }
end

function file_log.configure(confs)
  for _, conf in ipairs(confs or {}) do states[conf] = states[conf] or compile(conf) end
end

local function lose(conf, state, why)
  state.lost = state.lost + 1
  local now = time.now()
  if now - state.said_at < SAY_EVERY_S then return end
  log.warn("log lines dropped", { path = conf.path, lines = state.lost, error = why })
  state.lost, state.said_at = 0, now
end

function file_log.log(conf, exchange)
  local state = states[conf]
  for _, field in ipairs(state.fields) do exchange:set_serialize_value(field.name, field.chunk(exchange)) end
  local record = exchange:serialize()
  local line, err
  if conf.format == "text" then
    line = text.line(record, exchange, state.fields)
  else
    line, err = json.encode(record)
  end
  if line then line, err = file.append(conf.path, line, conf.reopen) end
  if not line then lose(conf, state, err) end
end

return file_log
