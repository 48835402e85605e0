-- SPDX-License-Identifier: Apache-2.0
-- `sluice run`: the program takes over from here.

local options = require "sluice.cli.options"

local run = {}

function run.run(args)
  local parsed = options.parse(args, { options.config })
  return { files = options.files(parsed), daemon = false }
end

return run
