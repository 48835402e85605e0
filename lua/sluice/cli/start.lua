-- SPDX-License-Identifier: Apache-2.0
-- `sluice start`: the program takes over from here.

local options = require "sluice.cli.options"

local start = {}

function start.run(args)
  local parsed = options.parse(args, { options.config })
  return { files = options.files(parsed), daemon = true }
end

return start
