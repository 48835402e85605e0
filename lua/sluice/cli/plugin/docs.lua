-- SPDX-License-Identifier: Apache-2.0
-- `sluice plugin docs NAME`: the table of options, written from the schema, which is the one place that describes them.

local described = require "sluice.cli.plugin.described"
local folders = require "sluice.cli.plugin.folders"
local json = require "sluice.json"
local options = require "sluice.cli.options"
local plugins = require "sluice.plugins"

local docs = {}

-- JSON whose members are in the order of their names, for the table must not depend on chance.
local function sorted_json(value)
  if type(value) ~= "table" then return assert(json.encode(value)) end
  local parts, names = {}, {}
  if value[1] ~= nil then
    for i, item in ipairs(value) do parts[i] = sorted_json(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for name in pairs(value) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = json.encode(name) .. ":" .. sorted_json(value[name]) end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function quoted(value)
  if type(value) == "string" then return '"' .. value .. '"' end
  if type(value) == "table" and next(value) == nil then return "[]" end
  return type(value) == "table" and sorted_json(value) or tostring(value)
end

local function one_of(values)
  local names = {}
  for index, value in ipairs(values) do names[index] = quoted(value) end
  return "one of " .. table.concat(names, ", ")
end

local function bounds(field)
  local parts = {}
  if field.one_of then parts[#parts + 1] = one_of(field.one_of) end
  if field.between then parts[#parts + 1] = ("%s to %s"):format(field.between[1], field.between[2]) end
  if field.gt then parts[#parts + 1] = "above " .. field.gt end
  local of = field.type == "string" and "characters" or "entries"
  if field.len_min and field.len_min > 0 then parts[#parts + 1] = ("at least %d %s"):format(field.len_min, of) end
  if field.len_max then parts[#parts + 1] = ("at most %d %s"):format(field.len_max, of) end
  if field.referenceable then parts[#parts + 1] = "may be a {vault://...} reference" end
  return parts
end

local function type_of(field)
  local text = field.type
  if field.type == "array" or field.type == "set" then
    local of = field.elements and type_of(field.elements) or "any"
    text = ("%s of %s"):format(field.type == "set" and "set" or "list", of)
  elseif field.type == "map" then
    text = "map of " .. (field.values and type_of(field.values) or "any")
  end
  local parts = bounds(field)
  table.insert(parts, 1, text)
  return table.concat(parts, ", ")
end

local function cell(text)
  return (tostring(text):gsub("|", "\\|"):gsub("%s*\n%s*", " "))
end

-- A record that must be there is made of its own defaults when it is not.
-- What the record that holds the field says in its own default goes before what the field says.
local function default_of(field, given)
  if field.type == "record" then return "" end
  local default = given
  if default == nil then default = field.default end
  if default ~= nil and default ~= json.null then return "`" .. quoted(default) .. "`" end
  return field.required and field.type ~= "record" and "required" or "" -- a record is made of its fields' defaults
end

local function put_fields(lines, fields, prefix, given)
  for _, entry in ipairs(fields) do
    local name, field = next(entry)
    local path, its_given = prefix .. name, type(given) == "table" and given[name] or nil
    lines[#lines + 1] = ("| `%s` | %s | %s | %s |"):format(path, cell(type_of(field)),
      cell(default_of(field, its_given)), cell(field.description or ""))
    local inner = field.type == "record" and field or field.elements
    if inner and inner.type == "record" then
      local own = inner == field
      put_fields(lines, inner.fields, path .. (own and "." or "[]."), own and (its_given or field.default) or nil)
    end
  end
end

-- The table in Markdown, for a schema in Kong's form.
---@param normal table
---@return string
function docs.table(normal)
  local lines = { "| option | type | default | about |", "|---|---|---|---|" }
  for _, entry in ipairs(normal.fields) do
    if entry.config then put_fields(lines, entry.config.fields, "") end
  end
  return table.concat(lines, "\n") .. "\n"
end

-- A README with the table between its marks; nil when it has none.
---@param readme string
---@param markdown string
---@return string|nil
function docs.renewed(readme, markdown)
  local open, close = "<!-- options -->\n", "<!-- /options -->"
  local _, from = readme:find(open, 1, true)
  local to = from and readme:find(close, from, true)
  if not to then return nil end
  return readme:sub(1, from) .. markdown .. readme:sub(to)
end

local function complain(text)
  io.stderr:write("sluice: ", text, "\n")
  return 1
end

local function read_text(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, markdown)
  local readme, unread = read_text(path)
  if not readme then return complain("cannot read " .. unread) end
  local text = docs.renewed(readme, markdown)
  if not text then return complain(path .. " has no lines <!-- options --> and <!-- /options -->") end
  local file, why = io.open(path, "wb")
  if not file then return complain("cannot write " .. why) end
  file:write(text)
  file:close()
  return 0
end

function docs.run(args, host)
  local parsed = options.parse(args, { folders.option, { "--write", key = "write" } }, 1)
  local name = parsed[1] or options.fail("expected a name")
  local dirs = folders.list(parsed, host)
  local code = plugins.discover(dirs)[name]
  if not code then return complain(("there is no plugin %s in %s"):format(name, table.concat(dirs, ", "))) end
  local normal, dir = described.schema(code)
  if not normal then return complain(dir) end
  local markdown = docs.table(normal)
  if parsed.write then return write(dir .. "/README.md", markdown) end
  io.write(markdown)
  return 0
end

return docs
