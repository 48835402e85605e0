-- SPDX-License-Identifier: Apache-2.0
-- The spec kit: a plugin against the real core, inside the process of its spec.
--
--   local spec = require "sluice.spec"
--   local gateway = spec.gateway { plugins = { { name = "hello", config = { greeting = "ahoy" } } } }
--   assert.equal("ahoy", gateway:get("/any").headers["x-hello"])
local core = require "sluice.spec.core"
local gateway = require "sluice.spec.gateway"
local lifetime = require "sluice.spec.lifetime"
local setup = require "sluice.spec.setup"

local spec = { home = core.home }

-- A running gateway. `options`: entities of Kong's declarative format as tables, or `config` (a YAML or JSON text);
-- without routes there is one to a service. Beside them: upstreams (by "name:port": see sluice.spec.services), dns,
-- env, time, seed, plugin_dirs, plugins_code (name -> text of handler.lua, or { handler =, schema = }). It ends with
-- the test or block that made it.
---@param options table
function spec.gateway(options)
  return lifetime.keep(gateway.new(options or {}))
end

-- Loads a configuration as `sluice check` does: true, or nil and its text.
---@param options table as for spec.gateway
---@return true|nil
---@return string|nil err
function spec.check(options)
  local files = require "sluice.spec.files"
  local directory = options.plugins_code and files.temporary()
  local ok, loaded, errors = pcall(setup.load, options, directory)
  if directory then files.remove(directory) end
  if not ok then error(loaded, 0) end
  if loaded then return true end
  return nil, setup.text(errors)
end

return spec
