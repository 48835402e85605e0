-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local function patterns(about)
  return { type = "array", default = {}, elements = typedefs.regex, about = about }
end

return {
  name = "bot-detection",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { allow = patterns "regular expressions for the `User-Agent` of who may pass, whatever else says no" },
      { deny = patterns "regular expressions for the `User-Agent` of who may not, beside the known bots" },
    }, shorthand_fields = typedefs.formerly { whitelist = "allow", blacklist = "deny" } } },
  },
}
