-- SPDX-License-Identifier: Apache-2.0
-- `sluice reload`: says what became of it.

local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"

local reload = {}

local PATIENCE_S = 150 -- the master gives checker and workers a minute each

function reload.run(args, host)
  local files = options.files(options.parse(args, { options.config }))
  local answer, why = gateway.ask(host, files, "reload", PATIENCE_S)
  if not answer then return gateway.complain(why) end
  if not answer.ok then
    gateway.print_errors(answer.errors)
    return gateway.complain("nothing was changed, the running generation stays")
  end
  if answer.changed then
    print(("generation %d is live, %d ms"):format(answer.revision, answer.took_ms))
  else
    print(("nothing has changed, generation %d stays"):format(answer.revision))
  end
  return 0
end

return reload
