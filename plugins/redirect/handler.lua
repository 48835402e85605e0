-- SPDX-License-Identifier: Apache-2.0
-- Sends clients elsewhere; no service is called.
local redirect = { version = "1.0.0", priority = 779 }

local targets = setmetatable({}, { __mode = "k" }) -- by configuration, which keeps the path: { base, fragment }

-- "https://a.example/x/?q#f" to "https://a.example/x" and "#f".
local function parts_of(location)
  local rest, fragment = location:match("^([^#]*)(#?.*)$")
  return { base = rest:gsub("%?.*$", ""):gsub("/+$", ""), fragment = fragment }
end

function redirect.configure(confs)
  for _, conf in ipairs(confs or {}) do
    if conf.keep_incoming_path then targets[conf] = parts_of(conf.location) end
  end
end

-- The path begins with one slash: behind an empty base two would name another host.
local function location_of(target, request)
  local path, query = request:get_path():gsub("^/+", "/"), request:get_raw_query()
  return target.base .. path .. (query ~= "" and "?" .. query or "") .. target.fragment
end

function redirect.access(conf, exchange)
  local target = targets[conf]
  local location = target and location_of(target, exchange.request) or conf.location
  exchange.response:exit(conf.status_code, "redirecting", { Location = location })
end

return redirect
