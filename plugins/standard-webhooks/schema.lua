-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local secrets = require "standard-webhooks.secrets"
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

return {
  name = "standard-webhooks",
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { secret_v1 = { type = "string", required = true, encrypted = true, referenceable = true,
        custom_validator = secrets.check,
        about = "secret shared with the sender: `whsec_` and base64, base64 alone, or any other text as it is" } },
      { tolerance_second = { type = "integer", required = true, default = 300, gt = -2,
        about = "seconds that a message's time may differ from now; -1: any" } },
    } } },
  },
}
