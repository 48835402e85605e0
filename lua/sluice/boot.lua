-- SPDX-License-Identifier: Apache-2.0
-- The first Lua that runs in a state made by core/vm.c: sets where modules come from, hands the core to `sluice.ffi`.
--
-- Called with what vm.c gives; in a worker it returns what vm.c keeps: the table of exchange objects by slot + 1 and
-- the function that each pooled coroutine runs. A checker or command has no worker, and gets nothing back.

local home, bridge_text, library, worker, on_error = ...

-- The folder a process happens to be started in is no place to load code from.
local function without_here(path)
  path = (";" .. path .. ";"):gsub(";%./[^;]*", "")
  return (path:gsub("^;+", ""):gsub(";+$", ""))
end

package.path = home .. "/lua/?.lua;" .. home .. "/lua/?/init.lua;" .. without_here(package.path)
package.cpath = without_here(package.cpath)
package.loaded["sluice.native"] = {
  home = home, bridge_text = bridge_text, library = library, worker = worker, on_error = on_error,
}

require "sluice.iterate" -- before whatever keeps `pairs` in a local
require("sluice.sandbox").bound_strings()

-- The defaults are a small program's: here each plugin on each route may want a trace of its own.
require("jit.opt").start("maxtrace=8000", "maxrecord=8000", "maxirconst=4000", "maxsnap=4000", "maxmcode=16384")

if worker then
  local runtime = require "sluice.runtime"
  rawset(coroutine, "yield", runtime.yield) -- of all that is loaded from here on
  runtime.construct_with(require("sluice.api").new)
  require "sluice.generation"
  runtime.on("start", function() require("sluice.vitals").start() end)
  return require("sluice.exchanges").objects, runtime.body
end
