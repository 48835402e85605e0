-- SPDX-License-Identifier: Apache-2.0
-- `sluice upgrade`

local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"

local upgrade = {}

local PATIENCE_S = 150

function upgrade.run(args, host)
  local files = options.files(options.parse(args, { options.config }))
  local answer, why = gateway.ask(host, files, "upgrade", PATIENCE_S)
  if not answer then return gateway.complain(why) end
  if not answer.ok then
    gateway.print_errors(answer.errors)
    return gateway.complain("the old process goes on")
  end
  print("the new process has taken over")
  return 0
end

return upgrade
