-- SPDX-License-Identifier: Apache-2.0
-- Runs Lua code of the configuration after every other plugin.
local functions = require "sluice.functions"

return functions.plugin(require "sluice.code", { name = "post-function", version = "1.0.0", priority = -1000 })
