-- SPDX-License-Identifier: Apache-2.0
-- What plugins that log share: the record of an exchange, with fields that an instance adds by Lua code.

local code = require "sluice.code"
local json = require "sluice.json"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local time = require "sluice.time"

local error, pairs, sort = error, pairs, table.sort

local logging = {}

local SAY_EVERY_S = 10

local lost = metrics.counter("sluice_log_lost_total", "Log lines that could not be written or sent", { "plugin" })

-- The field of a schema, Kong's.
logging.custom_fields_by_lua = { type = "map", keys = { type = "string", len_min = 1 },
  values = { type = "string", len_min = 1, custom_validator = code.check },
  about = "more fields, each by Lua code that returns its value; nil removes a field" }

---@param owner { env: table } the plugin; its globals are the code's
---@return sluice.logging
function logging.bind(owner)
  ---@class sluice.logging
  local bound = { custom_fields_by_lua = logging.custom_fields_by_lua }
  local code_of = code.bind(owner)

  -- The fields of an instance, ready to run, in the order of their names.
  ---@param conf { custom_fields_by_lua?: table<string, string> }
  ---@return { name: string, chunk: function }[]
  function bound.fields(conf)
    local fields, compiler = {}, code_of.compiler()
    for name, lua in pairs(conf.custom_fields_by_lua or {}) do
      local chunk, why = compiler(lua, "custom_fields_by_lua." .. name)
      if not chunk then error(why, 0) end
      fields[#fields + 1] = { name = name, chunk = chunk }
    end
    sort(fields, function(a, b) return a.name < b.name end)
    return fields
  end

  -- The record of an exchange in Kong's log format, these fields included.
  ---@param fields { name: string, chunk: function }[]
  ---@param exchange sluice.exchange
  ---@return table
  function bound.record(fields, exchange)
    for i = 1, #fields do exchange:set_serialize_value(fields[i].name, fields[i].chunk(exchange)) end
    return exchange:serialize()
  end

  -- The same as a line of JSON.
  ---@return string|nil
  ---@return string|nil err
  function bound.line(fields, exchange)
    return json.encode(bound.record(fields, exchange))
  end

  -- What an instance keeps to tell of its losses, now and then.
  ---@param facts table<string, any> of the instance, for the log
  function bound.losses(facts)
    return { facts = facts, count = 0, told_at = -SAY_EVERY_S }
  end

  -- A line is lost: counted, and told at a bounded rate.
  function bound.lose(losses, why)
    lost:add(1, owner.name)
    losses.count = losses.count + 1
    local now = time.monotonic()
    if now - losses.told_at < SAY_EVERY_S then return end
    local facts = { lines = losses.count, error = why }
    for name, value in pairs(losses.facts) do facts[name] = value end
    log.bind(owner.name).warn("log lines dropped", facts)
    losses.count, losses.told_at = 0, now
  end

  return bound
end

return logging
