-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local TYPES = {
  "text/*", "application/json", "application/*+json", "application/xml", "application/*+xml", "application/javascript",
  "application/x-javascript", "application/x-ndjson", "application/wasm", "application/vnd.ms-fontobject", "font/ttf",
  "font/otf", "image/svg+xml", "image/x-icon",
}

local function level(coding, most, default)
  return { type = "integer", default = default, between = { coding == "br" and 0 or 1, most },
    about = "how hard " .. coding .. " tries: more takes longer and gives less to send" }
end

local function check_type(entry)
  if entry:find("^[%w*!#$&^_.+-]+/[%w*!#$&^_.+-]+$") then return true end
  return nil, "expected a media type such as text/html, text/* or application/*+json"
end

local function check_once(list)
  local seen = {}
  for _, name in ipairs(list) do
    if seen[name] then return nil, "expected each coding once, found " .. name .. " again" end
    seen[name] = true
  end
  return true
end

return {
  name = "compression",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { algorithms = { type = "array", required = true, default = { "zstd", "br", "gzip" }, len_min = 1,
        elements = { type = "string", one_of = { "gzip", "br", "zstd" } }, custom_validator = check_once,
        about = "content codings; of several that a client likes equally, the first here" } },
      { types = { type = "array", required = true, default = TYPES, len_min = 1,
        elements = { type = "string", custom_validator = check_type },
        about = "media types to compress; `*` stands for any characters" } },
      { min_length = { type = "integer", required = true, default = 1024, between = { 0, 1073741824 },
        about = "bytes: what is known to be shorter goes as it is" } },
      { vary = { type = "boolean", required = true, default = true,
        about = "tell caches, by `Vary`, that it depends on the client" } },
      { gzip_level = level("gzip", 9, 5) },
      { br_level = level("br", 11, 4) },
      { zstd_level = level("zstd", 19, 3) },
    } } },
  },
}
