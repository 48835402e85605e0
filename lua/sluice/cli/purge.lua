-- SPDX-License-Identifier: Apache-2.0
-- `sluice purge`: removes stored responses, while the gateway runs or not: all workers share what is stored.

local ffi = require "ffi"
local gateway = require "sluice.cli.gateway"
local native = require "sluice.ffi"
local options = require "sluice.cli.options"

local purge = {}

local URL, TAG, KEY = ("u"):byte(), ("t"):byte(), 0
local MAP_BYTES = 2 ^ 30

-- Arguments in the order of their names, as responses are stored.
local function sorted_query(query)
  local list = {}
  for argument in query:gmatch("[^&]+") do list[#list + 1] = { argument:match("^[^=]*"), #list, argument } end
  table.sort(list, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  for i = 1, #list do list[i] = list[i][3] end
  return table.concat(list, "&")
end

-- "http://Host:80/path?b&a" as responses are stored: "host/path?a&b".
---@param url string
---@param prefix boolean the beginning of one
---@return string
function purge.name(url, prefix)
  local scheme, rest = url:match("^(https?)://(.*)$")
  rest = rest or url
  local host, path = rest:match("^([^/?]*)(.*)$")
  host = host:lower():gsub(scheme == "https" and ":443$" or ":80$", "")
  if prefix then return host .. path end
  local before, query = path:match("^([^?]*)%??(.*)$")
  query = sorted_query(query)
  return host .. (before ~= "" and before or "/") .. (query ~= "" and "?" .. query or "")
end

local function remove(folder, kind, text, prefix)
  local why = ffi.new("char[256]")
  local count = native.C.bridge_cache_purge_in(folder, MAP_BYTES, kind, text, #text, prefix, why, 256)
  if count ~= count then return nil, ffi.string(why) end
  return count
end

local function jobs_of(parsed)
  local jobs = {}
  for i = 1, #parsed do jobs[#jobs + 1] = { URL, purge.name(parsed[i], false), false } end
  for _, url in ipairs(parsed.prefixes or {}) do jobs[#jobs + 1] = { URL, purge.name(url, true), true } end
  for _, tag in ipairs(parsed.tags or {}) do jobs[#jobs + 1] = { TAG, tag, false } end
  for _, key in ipairs(parsed.keys or {}) do
    if not key:match("^%x+$") or #key ~= 32 then options.fail("%s is no key: 32 hexadecimal digits", key) end
    jobs[#jobs + 1] = { KEY, key, false }
  end
  if parsed.all then jobs[#jobs + 1] = { URL, "", true } end
  if not jobs[1] then options.fail("what is to be removed?") end
  return jobs
end

function purge.run(args)
  local parsed = options.parse(args, {
    options.config, { "--prefix", key = "prefixes", value = "URL", many = true },
    { "--tag", key = "tags", value = "TAG", many = true }, { "--key", key = "keys", value = "KEY", many = true },
    { "--all", key = "all" },
  }, 1000)
  local jobs, total = jobs_of(parsed), 0
  local folder = gateway.state_dir(options.files(parsed)) .. "/responses"
  local file = io.open(folder .. "/data.mdb")
  if not file then return gateway.complain("nothing is stored here (looked for " .. folder .. ")") end
  file:close()
  for _, job in ipairs(jobs) do
    local count, why = remove(folder, job[1], job[2], job[3])
    if not count then return gateway.complain(why) end
    total = total + count
  end
  print(("%d response%s removed"):format(total, total == 1 and "" or "s"))
  return 0
end

return purge
