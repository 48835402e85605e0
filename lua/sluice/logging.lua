-- SPDX-License-Identifier: Apache-2.0
-- What plugins that log share: the record of an exchange, with fields that an instance adds by Lua code.

local code = require "sluice.code"
local json = require "sluice.json"

local error, pairs, sort = error, pairs, table.sort

local logging = {}

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

  return bound
end

return logging
