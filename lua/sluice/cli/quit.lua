-- SPDX-License-Identifier: Apache-2.0
-- `sluice quit`: the gateway finishes what is in flight, then ends. Returns when it has gone.

local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"

local quit = {}

local PATIENCE_S = 3600

function quit.run(args, host)
  local files = options.files(options.parse(args, { options.config }))
  local answer, why = gateway.ask(host, files, "quit", PATIENCE_S)
  if not answer then return gateway.complain(why) end
  return answer.ok and 0 or 1
end

return quit
