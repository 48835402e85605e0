-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and `format`.
local logging = require "sluice.logging"
local typedefs = require "sluice.typedefs"

return {
  name = "file-log",
  fields = {
    { protocols = typedefs.protocols },
    { config = { type = "record", required = true, fields = {
      { path = { type = "string", required = true, match = "^[^*&%%\\`]+$", err = "a file's path",
        about = "file that lines are added to; it is made when there is none" } },
      { format = { type = "string", default = "json", one_of = { "json", "text" },
        about = "json: Kong's log format; text: one line as web servers write it" } },
      { reopen = { type = "boolean", default = false,
        about = "close the file after writing, and open it again for the next lines" } },
      { custom_fields_by_lua = logging.custom_fields_by_lua },
    } } },
  },
}
