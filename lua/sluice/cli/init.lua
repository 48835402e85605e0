-- SPDX-License-Identifier: Apache-2.0
-- The command line: finds the command and runs it. Each command is a module `sluice.cli.NAME` with
-- `run(args, host)`, which gives an exit code. `host` is what the program offers (core/main.c): ask, wait_change,
-- program, home, version, terminal.

local help = require "sluice.cli.help"
local options = require "sluice.cli.options"

local cli = {}

local same = { ["--help"] = "help", ["-h"] = "help", ["--version"] = "version", ["-V"] = "version", ["-v"] = "version" }

local function is_known(name)
  for _, known in ipairs(help.names) do
    if known == name then return true end
  end
  return false
end

local function asks_for_help(args)
  for _, arg in ipairs(args) do
    if arg == "--" then return false end
    if arg == "--help" or arg == "-h" then return true end
  end
  return false
end

local function complain(text)
  io.stderr:write("sluice: ", text, "\n")
  return 2
end

local function traceback(problem)
  return options.is_usage_error(problem) and problem or debug.traceback(problem, 2)
end

local function run(name, args, host)
  local ok, result = xpcall(function() return require("sluice.cli." .. name).run(args, host) end, traceback)
  if ok then return result end
  if not options.is_usage_error(result) then error(result, 0) end
  return complain(("%s: %s\n`sluice %s --help` shows how it is used."):format(name, result.message, name))
end

---@param args string[] without the program's name
---@param host table
---@return integer|table exit code, or what kind of gateway to run: { files = string[], daemon = boolean }
function cli.main(args, host)
  local name = same[args[1]] or args[1]
  if not name then
    io.stderr:write(help.overview())
    return 2
  end
  local rest = { unpack(args, 2) }
  -- Not for users: runs the specs of plugins in a process with the core in it.
  if name == "busted" then return require("sluice.cli.plugin").busted(rest) end
  if not is_known(name) then return complain(help.unknown(name)) end
  if name ~= "help" and asks_for_help(rest) then
    io.write(help.page(name))
    return 0
  end
  return run(name, rest, host)
end

return cli
