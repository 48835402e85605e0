-- SPDX-License-Identifier: Apache-2.0
-- `sluice version`

local options = require "sluice.cli.options"

local version = {}

function version.run(args, host)
  options.parse(args, {})
  print("sluice " .. host.version)
  return 0
end

return version
