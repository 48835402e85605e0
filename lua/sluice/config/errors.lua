-- SPDX-License-Identifier: Apache-2.0
-- The list of what is wrong with a configuration. Errors are noted while it is read, with the entry (or source) and the
-- keys they concern; only at the end are they given lines, for that takes a second reading of the file.
local cjson = require "cjson"
local source = require "sluice.config.source"
local words = require "sluice.schema.words"

local errors = {}

function errors.new()
  return { list = {}, warnings = {}, secrets = {} }
end

-- `err` = { expected, found, message?, keys?: path within the entry, other?: entry it collides with,
--   entry? or source? + keys, or file (+ line) alone }
function errors.add(self, err)
  self.list[#self.list + 1] = err
end

function errors.warn(self, warning)
  self.warnings[#self.warnings + 1] = warning
end

-- The path of an entry's item from the top of its file: { "services", 1, "routes", 2 }.
local function entry_path(entry, path)
  if entry.within then entry_path(entry.within, path) end
  path[#path + 1] = entry.list_key
  path[#path + 1] = entry.index
  return path
end

-- What an entry is, in the singular: "route", "keyauth credential".
function errors.kind(entry)
  return (entry.definition.kind:gsub("_", " "):gsub("credentials$", "credential"):gsub("s$", ""))
end

local function label(entry)
  local record = entry.record or {}
  local name = record.name or record.username or record.custom_id or record.target or record.instance_name
    or record.prefix
  local kind = errors.kind(entry)
  if type(name) == "string" then return ("%s %s"):format(kind, words.value(name)) end
  if type(record.id) == "string" and not entry.failed then return kind .. " " .. record.id end
  return kind
end
errors.label = label

local function place(src, path)
  local line = source.position(src, path)
  return line and src.file .. ":" .. line or src.file .. " at " .. words.path(path)
end

local function joined(path, keys)
  local result = {}
  for i, key in ipairs(path) do result[i] = key end
  for _, key in ipairs(keys or {}) do result[#result + 1] = key end
  return result
end

local function conceal(text, secrets)
  if not text then return nil end
  for secret, reference in pairs(secrets) do
    local first, last = text:find(secret, 1, true)
    if first then text = text:sub(1, first - 1) .. reference .. text:sub(last + 1) end
  end
  return text
end

local function located(err, src, path)
  local result = { file = src and src.file or err.file, line = err.line, column = err.column }
  if src and not err.line then result.line, result.column = source.position(src, path) end
  result.path = #path > 0 and words.path(path) or nil
  return result
end

local function field_of(err)
  local field = err.field or words.path(err.keys or {})
  return field ~= "" and field or nil
end

local function finish_one(err, secrets)
  local entry = err.entry
  local base = entry and entry_path(entry, {}) or {}
  local path = joined(base, err.keys)
  local result = located(err, entry and entry.source or err.source, path)
  result.entity, result.entity_path = err.entity, nil
  if entry then result.entity, result.entity_path = label(entry), words.path(base) end
  result.field = field_of(err)
  result.expected, result.found = conceal(err.expected, secrets), conceal(err.found, secrets)
  if err.other then
    result.found = (result.found or "it") .. ", first at " .. place(err.other.source, entry_path(err.other, {}))
  end
  result.message = err.message and conceal(err.message, secrets) or words.sentence(result)
  return result
end

local function before(a, b)
  if a.order ~= b.order then return a.order < b.order end
  if (a.line or 0) ~= (b.line or 0) then return (a.line or 0) < (b.line or 0) end
  if (a.column or 0) ~= (b.column or 0) then return (a.column or 0) < (b.column or 0) end
  return a.text < b.text
end

-- One error as a line: "kong.yml:12: plugin "cors" (plugins[0]): config.max_age: expected an integer, found a string".
function errors.line(err)
  local parts = {}
  if err.file then parts[1] = err.file .. (err.line and ":" .. err.line or "") end
  if err.entity then
    parts[#parts + 1] = err.entity .. (err.entity_path and err.line and " (" .. err.entity_path .. ")" or "")
  end
  if err.field then parts[#parts + 1] = err.field end
  parts[#parts + 1] = err.message
  return table.concat(parts, ": ")
end

local function finish_list(list, secrets)
  local result, order = {}, {}
  for _, err in ipairs(list) do
    local done = finish_one(err, secrets)
    done.text = errors.line(done)
    local file = done.file or ""
    if not order[file] then
      order[file] = #order + 1
      order[#order + 1] = file
    end
    done.order = order[file]
    result[#result + 1] = done
  end
  table.sort(result, before)
  for _, err in ipairs(result) do err.order = nil end
  return result
end

-- The errors and the warnings with their places, sorted by file and line:
-- { file, line, column, path, entity, field, expected, found, message, text }.
function errors.finish(self)
  return finish_list(self.list, self.secrets), finish_list(self.warnings, self.secrets)
end

-- An error as one line of JSON.
function errors.json(err)
  return cjson.encode { file = err.file, line = err.line, column = err.column, path = err.path, entity = err.entity,
    field = err.field, expected = err.expected, found = err.found, message = err.message }
end

return errors
