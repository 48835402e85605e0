-- SPDX-License-Identifier: Apache-2.0
-- `host`, `path`, `path_concat_mode` and `sample_ratio` are those of APISIX's plugin of that name.
local typedefs = require "sluice.typedefs"

local function is_host(text)
  local ok, why = typedefs.url.custom_validator(text)
  if not ok then return nil, why end
  if text:find("^https?://") and not text:find("[?#]") then return true end
  return nil, "expected a URL of http or https without a query"
end

return {
  name = "proxy-mirror",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { host = { type = "string", required = true, custom_validator = is_host,
        about = "where copies go: scheme, host, port, and perhaps a path to begin with" } },
      { path = typedefs.path { about = "in place of the request's path, or in front of it" } },
      { path_concat_mode = { type = "string", default = "replace", one_of = { "replace", "prefix" },
        about = "what `path` does" } },
      { sample_ratio = { type = "number", required = true, default = 1, between = { 0, 1 },
        about = "share of the requests that are copied" } },
      { mark = { type = "string", required = true, default = "X-Mirrored", len_min = 0,
        match = "^[%w!#$%%&'*+.^_`|~-]*$", err = "a header name",
        about = "field of a copy that holds the id of the request; an empty one: none" } },
      { preserve_host = { type = "boolean", required = true, default = false,
        about = "send the client's Host in place of that of `host`" } },
      { tls_verify = { type = "boolean", required = true, default = true, about = "verify the server's certificate" } },
      { timeout = { type = "integer", required = true, default = 10000, between = { 1, 3600000 },
        about = "milliseconds that a copy may take" } },
      { max_body = { type = "integer", required = true, default = 1048576, between = { 0, 67108864 },
        about = "bytes of a body; requests with longer ones are not copied" } },
      { max_in_flight = { type = "integer", required = true, default = 100, between = { 1, 10000 },
        about = "copies under way in one worker; more are dropped" } },
      { max_memory = { type = "integer", required = true, default = 67108864, between = { 1, 4294967296 },
        about = "bytes of bodies that are held for copies in one worker; what does not fit is dropped" } },
    } } },
  },
}
