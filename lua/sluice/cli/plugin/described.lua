-- SPDX-License-Identifier: Apache-2.0
-- What a plugin's schema says, for commands that read it.

local plugins = require "sluice.plugins"
local schema = require "sluice.schema"

local described = {}

-- The schema in Kong's form and the plugin's folder, from what plugins.discover found; or nil and what is wrong.
---@param code table
---@return table|nil
---@return string folder, or what is wrong
function described.schema(code)
  local plugin, why = plugins.load(code, { trusted = true })
  if not plugin then return nil, ("%s:%d: %s"):format(why.file, why.line, why.message) end
  local normal, problem = schema.normalise(plugin.schema or {})
  if not normal then return nil, ("%s/schema.lua: %s"):format(code.dir, problem) end
  return normal, code.dir
end

return described
