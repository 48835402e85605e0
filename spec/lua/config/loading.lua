-- SPDX-License-Identifier: Apache-2.0
-- Loads configurations in specs: from texts, with plugins that are only schemas.
local config = require "sluice.config"
local registry = require "sluice.config.registry"

local loading = {}

loading.schemas = {
  hello = { greeting = { type = "string", default = "hello", len_max = 64 } },
  events = require("sluice.kafka.conf").schema {},
  ["key-auth"] = { name = "key-auth", fields = {
    { consumer = { type = "foreign", reference = "consumers", eq = require("cjson").null } },
    { protocols = { type = "set", default = { "http", "https" }, elements = { type = "string", one_of = { "http",
      "https" } } } },
    { config = { type = "record", fields = {
      { key_names = { type = "array", elements = { type = "string" }, default = { "apikey" } } },
      { anonymous = { type = "string" } },
    } } },
  } },
}

local function options(environment)
  return { name = "kong.yml", registry = registry.of_schemas(loading.schemas), getenv = function(name)
    return (environment or {})[name]
  end }
end

-- The configuration of a text; nil and the errors.
function loading.text(text, environment)
  return config.of_text(text, options(environment))
end

-- The configuration of a text that must be good.
function loading.good(text, environment)
  local loaded, errors = loading.text(text, environment)
  if not loaded then
    local lines = {}
    for i, err in ipairs(errors) do lines[i] = err.text end
    error("expected a good configuration, found:\n" .. table.concat(lines, "\n"), 2)
  end
  return loaded
end

-- The errors of a text that must have some, as lines.
function loading.bad(text, environment)
  local loaded, errors = loading.text(text, environment)
  if loaded then error("expected errors, found none", 2) end
  local lines = {}
  for i, err in ipairs(errors) do lines[i] = err.text end
  return lines, errors
end

-- The only error of a text.
function loading.error(text, environment)
  local lines, errors = loading.bad(text, environment)
  if #lines ~= 1 then error("expected one error, found:\n" .. table.concat(lines, "\n"), 2) end
  return lines[1], errors[1]
end

return loading
