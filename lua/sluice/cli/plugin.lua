-- SPDX-License-Identifier: Apache-2.0
-- `sluice plugin new|list|test|docs|compare`: one file each in cli/plugin/.

local options = require "sluice.cli.options"
local suggest = require "sluice.config.suggest"

local plugin = {}

local names = { "new", "list", "test", "docs", "compare" }

function plugin.run(args, host)
  local name = args[1]
  if not name then options.fail("expected one of %s", table.concat(names, ", ")) end
  for _, known in ipairs(names) do
    if known == name then return require("sluice.cli.plugin." .. name).run({ unpack(args, 2) }, host) end
  end
  return options.fail("unknown command %s%s", name, suggest.phrase(name, names))
end

-- Runs busted in this very process, which holds the core. Its runner returns when all is well and raises nothing (nil)
-- when a spec failed, which it has told.
function plugin.busted(args)
  _G.arg = { [0] = "sluice busted", unpack(args) }
  local ok, problem = pcall(require "busted.runner", { standalone = false })
  if problem then io.stderr:write(tostring(problem), "\n") end
  return ok and 0 or 1
end

return plugin
