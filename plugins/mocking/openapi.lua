-- SPDX-License-Identifier: Apache-2.0
-- An OpenAPI document (2.0, 3.0, 3.1) to a list of operations with ready answers: done once, when the configuration is
-- checked.
local json = require "sluice.json"
local sample = require "mocking.sample"

local openapi = {}

local METHODS = { get = true, put = true, post = true, delete = true, options = true, head = true, patch = true,
  trace = true }
local MOST_ANSWER_BYTES, MOST_BYTES = 1048576, 16777216

local Document = {}
Document.__index = Document

local function sorted_keys(map)
  local keys = {}
  for key in pairs(type(map) == "table" and map or {}) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  return keys
end

-- Of a map by name, of a list by its number from 0.
local function member(value, name)
  if type(value) ~= "table" then return nil end
  if value[name] ~= nil then return value[name] end
  return tonumber(name) and value[tonumber(name) + 1]
end

-- Follows references within the document, one behind the other.
function Document:resolve(value)
  local steps = 0
  while type(value) == "table" and type(value["$ref"]) == "string" do
    steps = steps + 1
    local pointer = value["$ref"]
    if steps > 32 then error({ spec = true, message = "references go round in a ring: " .. pointer }, 0) end
    if pointer:sub(1, 2) ~= "#/" then
      error({ spec = true, message = "only references within the document can be followed, found " .. pointer }, 0)
    end
    value = self.tree
    for part in pointer:sub(3):gmatch("[^/]+") do
      part = part:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end):gsub("~1", "/")
        :gsub("~0", "~")
      value = member(value, part)
    end
    if value == nil then error({ spec = true, message = "there is nothing at " .. pointer }, 0) end
  end
  return value
end

local function is_json(content_type)
  local plain = content_type:lower():gsub("%s*;.*$", "")
  return plain == "application/json" or plain:find("+json", 1, true) ~= nil or plain == "*/*"
end

-- The text of an example: a text as it is, unless JSON is what is wanted.
function Document:text(value, content_type, schema)
  if type(value) == "string" and not is_json(content_type) then return value end
  if type(value) == "string" and json.decode(value) ~= nil and value:find("^%s*[%[{]") then return value end
  local text, err = json.encode(sample.with_arrays(self, value, schema))
  if not text then error({ spec = true, message = "an example is no JSON: " .. err }, 0) end
  if #text > MOST_ANSWER_BYTES then
    error({ spec = true, message = ("an example is larger than %d bytes"):format(MOST_ANSWER_BYTES) }, 0)
  end
  self.bytes = self.bytes + #text
  if self.bytes > MOST_BYTES then
    error({ spec = true, message = ("its examples are larger than %d bytes"):format(MOST_BYTES) }, 0)
  end
  return text
end

-- Examples of one media type: named ones, a single one, or one made of the schema.
function Document:examples(content_type, media)
  local list = {}
  local schema = self:resolve(media.schema)
  for _, id in ipairs(sorted_keys(media.examples)) do
    local example = self:resolve(media.examples[id])
    if type(example) == "table" and example.value ~= nil then
      list[#list + 1] = { id = id, body = self:text(example.value, content_type, schema) }
    end
  end
  if #list == 0 and media.example ~= nil then
    list[1] = { id = "", body = self:text(media.example, content_type, schema) }
  end
  if #list == 0 and type(schema) == "table" then
    local value = sample.of(self, schema)
    if value ~= nil then list[1] = { id = "", body = self:text(value, content_type, schema) } end
  end
  return list
end

-- Media types in the order of preference: JSON first, then by name.
function Document:types(content)
  local names, types = sorted_keys(content), {}
  table.sort(names, function(a, b)
    if is_json(a) ~= is_json(b) then return is_json(a) end
    return a < b
  end)
  for _, name in ipairs(names) do
    local media = self:resolve(content[name])
    types[#types + 1] = { type = name == "*/*" and "application/json" or name,
      examples = self:examples(name, type(media) == "table" and media or {}) }
  end
  return types
end

-- What version 2.0 says of a response, in the form of 3.
function Document:content_of_2(response, operation)
  local produces = operation.produces or self.tree.produces or { "application/json" }
  local content = {}
  for name, value in pairs(type(response.examples) == "table" and response.examples or {}) do
    content[name] = { example = value, schema = response.schema }
  end
  if next(content) == nil and response.schema then
    for _, name in ipairs(produces) do content[name] = { schema = response.schema } end
  end
  return content
end

function Document:headers(response)
  local headers = {}
  for name, header in pairs(type(response.headers) == "table" and response.headers or {}) do
    header = self:resolve(header)
    local schema = type(header) == "table" and (self:resolve(header.schema) or header) or {}
    local value = type(header) == "table" and header.example
    if value == nil or value == false then value = schema.example or schema.default end
    local is_plain = value ~= nil and type(value) ~= "table" and name:lower() ~= "content-type"
    if is_plain then headers[name] = tostring(value) end
  end
  return headers
end

-- 200 for "200", "2XX", and for `default` where there is nothing else.
local function code_of(name, alone)
  local class = name:match("^(%d)[Xx][Xx]$")
  if class then return tonumber(class) * 100 end
  if name == "default" then return alone and 200 or nil end
  return tonumber(name:match("^%d%d%d$"))
end

function Document:statuses(operation)
  local names, list, seen = sorted_keys(operation.responses), {}, {}
  for _, name in ipairs(names) do
    local code = code_of(name, #names == 1)
    if code and code >= 200 and code <= 599 and not seen[code] then
      seen[code] = true
      local response = self:resolve(operation.responses[name])
      response = type(response) == "table" and response or {}
      local content = self.is_2 and self:content_of_2(response, operation) or response.content
      list[#list + 1] = { code = code, headers = self:headers(response), types = self:types(content) }
    end
  end
  table.sort(list, function(a, b) return a.code < b.code end)
  return list
end

function Document:operations()
  local list = {}
  for _, path in ipairs(sorted_keys(self.tree.paths)) do
    local item = self:resolve(self.tree.paths[path])
    for method, operation in pairs(type(item) == "table" and item or {}) do
      if METHODS[method] and type(operation) == "table" then
        list[#list + 1] = { method = method:upper(), path = path, statuses = json.array(self:statuses(operation)) }
      end
    end
  end
  table.sort(list, function(a, b)
    if a.path ~= b.path then return a.path < b.path end
    return a.method < b.method
  end)
  return list
end

-- The path that servers begin with.
local function base_path_of(tree, is_2)
  if is_2 then return type(tree.basePath) == "string" and tree.basePath or "" end
  local server = type(tree.servers) == "table" and tree.servers[1]
  local url = type(server) == "table" and type(server.url) == "string" and server.url or ""
  url = url:gsub("{([^{}]+)}", function(name)
    local variable = type(server.variables) == "table" and server.variables[name]
    return type(variable) == "table" and tostring(variable.default or "") or ""
  end)
  return url:match("^%a[%w+.-]*://[^/]*(.*)$") or url
end

-- The operations of a document as JSON; nil and what is wrong with it.
---@param tree table the document
---@return string|nil
---@return string|nil err
function openapi.compile(tree)
  local is_2 = tree.swagger ~= nil
  if not is_2 and tree.openapi == nil then return nil, "it has neither openapi nor swagger at its top" end
  if type(tree.paths) ~= "table" then return nil, "it has no paths" end
  local document = setmetatable({ tree = tree, is_2 = is_2, bytes = 0 }, Document)
  local ok, operations = pcall(document.operations, document)
  if not ok then
    if type(operations) == "table" and operations.spec then return nil, operations.message end
    error(operations, 0)
  end
  return json.encode { base_path = base_path_of(tree, is_2), operations = json.array(operations) }
end

return openapi
