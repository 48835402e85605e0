-- SPDX-License-Identifier: Apache-2.0
-- Replaces {vault://...} by its value wherever a text stands in the sources, before any field is looked at.
local cjson = require "cjson"
local errors = require "sluice.config.errors"
local vault = require "sluice.vault"
local words = require "sluice.schema.words"

local secrets = {}

-- The settings of vault entities by their prefix, from the raw trees: they are needed before entities are read.
local function vaults_of(sources)
  local result = {}
  for _, src in ipairs(sources) do
    local list = type(src.tree) == "table" and src.tree.vaults
    for _, item in ipairs(type(list) == "table" and list or {}) do
      if type(item) == "table" and type(item.prefix) == "string" then
        result[item.prefix] = type(item.config) == "table" and item.config or {}
      end
    end
  end
  return result
end

-- A reference that was not quoted: YAML reads {vault://env/X} as a map with one key and no value.
local function unquoted(value)
  local key, item = next(value)
  if type(key) ~= "string" or item ~= cjson.null or not key:find("^vault://") then return nil end
  if next(value, key) ~= nil then return nil end
  return "{" .. key .. "}"
end

local function reference_in(value)
  if type(value) == "string" then return vault.is_reference(value) and value or nil end
  if type(value) == "table" then return unquoted(value) end
end

local function walk(state, value)
  if state.seen[value] then return end
  state.seen[value] = true
  local path = state.path
  for key, item in pairs(value) do
    path[#path + 1] = key
    local reference = reference_in(item)
    if reference then
      local secret, expected = state.resolve(reference)
      if secret then
        state.errors.secrets[secret] = #secret > 3 and reference or nil
      else
        local keys = {}
        for i, part in ipairs(path) do keys[i] = part end
        errors.add(state.errors, { source = state.source, keys = keys, expected = expected,
          found = "nothing for " .. words.value(reference) })
      end
      value[key] = secret or ""
      if not secret then state.failed = true end
    elseif type(item) == "table" then
      walk(state, item)
    end
    path[#path] = nil
  end
end

-- Changes the sources' trees in place. Returns false when a reference leads nowhere: then nothing else is worth
-- checking, as half of the fields would be wrong.
function secrets.resolve(loader, getenv)
  local state = { errors = loader.errors, resolve = vault.resolver(vaults_of(loader.sources), getenv) }
  for _, src in ipairs(loader.sources) do
    if src.references and type(src.tree) == "table" then
      state.source, state.path, state.seen = src, {}, {}
      walk(state, src.tree)
    end
  end
  return not state.failed
end

return secrets
