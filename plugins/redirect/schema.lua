-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local function is_location(text)
  if text:find("[%s%c]") then return nil, "expected a URL without spaces" end
  if text:find("^/[^/]") or text == "/" then return true end
  return typedefs.url.custom_validator(text)
end

return {
  name = "redirect",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { status_code = { type = "integer", required = true, default = 301, between = { 100, 599 },
        about = "status of the answer" } },
      { location = { type = "string", required = true, custom_validator = is_location,
        about = "where to: a URL, or a path on the same host" } },
      { keep_incoming_path = { type = "boolean", default = false,
        about = "put path and query of the request behind `location`" } },
    } } },
  },
}
