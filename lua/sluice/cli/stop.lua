-- SPDX-License-Identifier: Apache-2.0
-- `sluice stop`: the gateway ends at once. Returns when it has gone.

local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"

local stop = {}

local PATIENCE_S = 30

function stop.run(args, host)
  local files = options.files(options.parse(args, { options.config }))
  local answer, why = gateway.ask(host, files, "stop", PATIENCE_S)
  if not answer then return gateway.complain(why) end
  return answer.ok and 0 or 1
end

return stop
