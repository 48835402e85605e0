-- SPDX-License-Identifier: Apache-2.0
-- `sluice plugin list`: what the running gateway has loaded; without one, what a gateway started here would find.

local columns = require "sluice.cli.columns"
local folders = require "sluice.cli.plugin.folders"
local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"
local plugins = require "sluice.plugins"

local list = {}

local PATIENCE_S = 10

local heads = { "PLUGIN", "VERSION", "PRIORITY", "HASH", "FROM", "" }

local function loaded(worker)
  local rows = {}
  for _, plugin in ipairs(worker.plugins) do
    rows[#rows + 1] = { plugin.name, plugin.version, plugin.priority, plugin.hash, plugin.dir or "", "" }
  end
  return rows
end

local function found(dirs)
  local rows = {}
  for name, code in pairs(plugins.discover(dirs)) do
    local plugin, why = plugins.load(code, {})
    rows[#rows + 1] = {
      name, plugin and plugin.version or "", plugin and plugin.priority or "", code.hash, code.dir,
      why and gateway.sentence { file = why.file, line = why.line, message = why.message:match("^[^\n]*") } or "",
    }
  end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  return rows
end

function list.run(args, host)
  local parsed = options.parse(args, { options.config, folders.option })
  local state = not parsed.dirs and gateway.ask(host, options.files(parsed), "status", PATIENCE_S)
  local worker = state and type(state.worker) == "table" and state.worker.plugins and state.worker
  io.write(columns.format(heads, worker and loaded(worker) or found(folders.list(parsed, host)), { [3] = true }))
  return 0
end

return list
