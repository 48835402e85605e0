-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local functions = require "sluice.functions"
local typedefs = require "sluice.typedefs"

return {
  name = "post-function",
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = typedefs.protocols },
    { config = { type = "record", required = true, fields = functions.fields(require "sluice.code"),
      shorthand_fields = typedefs.formerly { functions = "access" } } },
  },
}
