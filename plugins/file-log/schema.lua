-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and `format`.
local code = require "sluice.code"
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
      { custom_fields_by_lua = { type = "map", keys = { type = "string", len_min = 1 },
        values = { type = "string", len_min = 1, custom_validator = code.check },
        about = "more fields, each by Lua code that returns its value; nil removes a field" } },
    } } },
  },
}
