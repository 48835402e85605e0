-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

return {
  name = "acl",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { allow = { type = "array", elements = { type = "string" }, about = "groups that may pass, and no others" } },
      { deny = { type = "array", elements = { type = "string" }, about = "groups that may not pass" } },
      { hide_groups_header = { type = "boolean", required = true, default = false,
        about = "the service is not told the groups" } },
      { include_consumer_groups = { type = "boolean", required = true, default = false,
        about = "names of consumer groups are groups too" } },
      { always_use_authenticated_groups = { type = "boolean", required = true, default = false,
        about = "groups that an authentication plugin found out are used even of a known consumer" } },
    }, shorthand_fields = typedefs.formerly { whitelist = "allow", blacklist = "deny" } } },
  },
  entity_checks = { { only_one_of = { "config.allow", "config.deny" } } },
}
