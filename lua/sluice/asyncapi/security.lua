-- SPDX-License-Identifier: Apache-2.0
-- How clients of a route show who they are, in AsyncAPI's words.
local security = {}

-- By plugin: name of a scheme to what it is.
local SCHEMES = {}

SCHEMES["key-auth"] = function(conf)
  local schemes = {}
  for _, name in ipairs(conf.key_names or { "apikey" }) do
    if conf.key_in_header ~= false then
      schemes["key-in-header-" .. name] = { type = "httpApiKey", name = name, ["in"] = "header" }
    end
    if conf.key_in_query ~= false then
      schemes["key-in-query-" .. name] = { type = "httpApiKey", name = name, ["in"] = "query" }
    end
  end
  return schemes
end

SCHEMES["basic-auth"] = function()
  return { basic = { type = "http", scheme = "basic" } }
end

SCHEMES["jwt"] = function()
  return { ["bearer-token"] = { type = "http", scheme = "bearer", bearerFormat = "JWT" } }
end

SCHEMES["hmac-auth"] = function()
  return { hmac = { type = "http", scheme = "hmac", description = "requests signed with a shared secret" } }
end

SCHEMES["mtls-auth"] = function()
  return { certificate = { type = "X509", description = "a client certificate" } }
end

-- References to the schemes of a route, any of which will do; the schemes go into `components`.
---@param plugins table<string, table>
---@param components table
---@return table[]|nil
function security.of(plugins, components)
  local names = {}
  for plugin, schemes_of in pairs(SCHEMES) do
    local conf = plugins[plugin]
    for name, scheme in pairs(conf and schemes_of(conf) or {}) do
      components.securitySchemes = components.securitySchemes or {}
      components.securitySchemes[name] = scheme
      names[#names + 1] = name
    end
  end
  if not names[1] then return nil end
  table.sort(names)
  local list = {}
  for i, name in ipairs(names) do list[i] = { ["$ref"] = "#/components/securitySchemes/" .. name } end
  return list
end

return security
