-- SPDX-License-Identifier: Apache-2.0
-- The HTTP rules of a schema (google.api.http), and which of them a request matches.
--
--   Template = "/" Segment { "/" Segment } [ ":" VERB ]
--   Segment  = "*" | "**" | LITERAL | "{" FIELD { "." FIELD } [ "=" Segment { "/" Segment } ] "}"
--
-- Templates are kept as a tree by segment. A literal goes before "*", and "*" before "**", which stands last.
local find, gsub, match, sub = string.find, string.gsub, string.match, string.sub

local rules = {}

-- ---- Templates ------------------------------------------------------------------------------------------------------

local function from_hex(digits)
  return string.char(tonumber(digits, 16))
end

local function decode(text)
  return (gsub(text, "%%(%x%x)", from_hex))
end

local function from_hex_but_slash(digits)
  if digits ~= "2F" and digits ~= "2f" then return from_hex(digits) end
end

-- Of several segments together, where an encoded "/" must not look like one that parts them.
local function decode_some(text)
  return (gsub(text, "%%(%x%x)", from_hex_but_slash))
end

local parse_segments

local function parse_variable(state)
  local path, after = match(state.text, "^{([%a_][%w_.]*)()", state.at)
  if not path or find(path, "%.%.") or sub(path, -1) == "." then return "a variable needs the name of a field" end
  local first = #state.segments + 1
  state.at = after
  if sub(state.text, after, after) == "=" then
    state.at = after + 1
    state.inside = true
    local err = parse_segments(state)
    if err then return err end
    state.inside = false
  else
    state.segments[first] = "*"
  end
  if sub(state.text, state.at, state.at) ~= "}" then return "a variable without an end" end
  state.at = state.at + 1
  state.variables[#state.variables + 1] = { path = path, first = first, last = #state.segments }
end

local function parse_segment(state)
  local text, at = state.text, state.at
  if sub(text, at, at) == "{" then
    if state.inside then return "a variable within a variable" end
    return parse_variable(state)
  end
  local literal, after = match(text, "^([^/{}*:=]+)()", at)
  if not literal then literal, after = match(text, "^(%*%*?)()", at) end
  if not literal then return "an empty segment" end
  if state.segments[#state.segments] == "**" then return "something behind **" end
  state.segments[#state.segments + 1] = sub(literal, 1, 1) == "*" and literal or { decode(literal) }
  state.at = after
end

function parse_segments(state)
  while true do
    local err = parse_segment(state)
    if err then return err end
    if sub(state.text, state.at, state.at) ~= "/" then return nil end
    state.at = state.at + 1
  end
end

-- { segments = { "*" | "**" | { literal } }, variables = { { path, first, last } }, verb }; nil and what is wrong.
---@param text string
---@return table|nil
---@return string|nil err
function rules.parse(text)
  if sub(text, 1, 1) ~= "/" then return nil, "it does not begin with /" end
  local state = { text = text, at = 2, segments = {}, variables = {}, inside = false }
  local err = parse_segments(state)
  if err then return nil, err end
  for _, variable in ipairs(state.variables) do
    variable.rest = state.segments[variable.last] == "**"
    variable.single = variable.first == variable.last and not variable.rest
  end
  local verb = match(text, "^:([^/{}*:=]+)$", state.at)
  if state.at <= #text and not verb then return nil, "unexpected " .. sub(text, state.at) end
  return { segments = state.segments, variables = state.variables, verb = verb or "" }
end

-- ---- Fields ---------------------------------------------------------------------------------------------------------

-- A field by its dotted path: the names on the way, and the last field; nil when there is none. What does not end in a
-- singular message on the way cannot be passed through.
---@param schema sluice.protobuf.schema
---@param message string
---@param path string
---@return string[]|nil names
---@return table|nil field
function rules.field(schema, message, path)
  local names, field = {}, nil
  for name in path:gmatch("[^.]+") do
    if field then
      if not field.message or field.repeated then return nil end
      message = field.message
    end
    field = schema:field(message, name)
    if not field then return nil end
    names[#names + 1] = field.name
  end
  return names, field
end

-- ---- The tree -------------------------------------------------------------------------------------------------------

local function new_node()
  return { literals = {}, ends = {} }
end

local function insert(root, template, verb, rule)
  local node = root
  for _, segment in ipairs(template.segments) do
    local holder, key = node, segment
    if type(segment) == "table" then holder, key = node.literals, segment[1] end
    if not holder[key] then holder[key] = new_node() end
    node = holder[key]
  end
  local methods = node.ends[template.verb]
  if not methods then
    methods = {}
    node.ends[template.verb] = methods
  end
  if not methods[verb] then methods[verb] = rule end -- the first that the file names
end

local function check_rule(schema, method, rule, template)
  for _, variable in ipairs(template.variables) do
    local names, field = rules.field(schema, method.input, variable.path)
    if not names or field.repeated then return ("{%s} is no field of %s"):format(variable.path, method.input) end
    variable.names = names
  end
  if rule.body ~= "" and rule.body ~= "*" and not schema:field(method.input, rule.body) then
    return ("body %s is no field of %s"):format(rule.body, method.input)
  end
  if rule.response_body ~= "" and not schema:field(method.output, rule.response_body) then
    return ("response_body %s is no field of %s"):format(rule.response_body, method.output)
  end
end

local function compile_rule(schema, method, rule)
  local template, err = rules.parse(rule.pattern)
  err = err or check_rule(schema, method, rule, template)
  if err then return nil, ("%s: %s %s: %s"):format(sub(method.path, 2), rule.verb, rule.pattern, err) end
  local body = rule.body ~= "" and rule.body ~= "*" and schema:field(method.input, rule.body) or nil
  local out = rule.response_body ~= "" and schema:field(method.output, rule.response_body) or nil
  local bound = {}
  for _, variable in ipairs(template.variables) do bound[table.concat(variable.names, ".")] = true end
  return template, { method = method, variables = template.variables, bound = bound, body = rule.body, field = body,
    response_body = out and out or nil }
end

---@class grpc_gateway.rules
local Rules = {}
Rules.__index = Rules

-- Of all methods of a schema; nil and what is wrong with one.
---@param schema sluice.protobuf.schema
---@return grpc_gateway.rules|nil
---@return string|nil err
function rules.compile(schema)
  local self = setmetatable({ root = new_node(), streams = false, count = 0 }, Rules)
  for _, method in ipairs(schema:methods()) do
    for _, rule in ipairs(method.rules) do
      local template, compiled = compile_rule(schema, method, rule)
      if not template then return nil, compiled end
      insert(self.root, template, rule.verb, compiled)
      self.count = self.count + 1
      self.streams = self.streams or method.server_streaming
    end
  end
  return self
end

-- ---- Matching -------------------------------------------------------------------------------------------------------

local function note_others(search, methods)
  search.others = search.others or {}
  for verb in pairs(methods) do search.others[verb] = true end
end

local function found_at(node, search)
  local methods = node and node.ends[search.verb]
  if not methods then return nil end
  if methods[search.method] then return methods[search.method] end
  note_others(search, methods)
end

local function walk(node, search, at)
  if at > search.count then
    return found_at(node, search) or found_at(node["**"], search)
  end
  local segment = search.segments[at]
  local literal = node.literals[decode(segment)]
  local rule = literal and walk(literal, search, at + 1)
  if rule then return rule end
  rule = node["*"] and segment ~= "" and walk(node["*"], search, at + 1)
  return rule or found_at(node["**"], search)
end

local function split(path)
  local segments, count = {}, 0
  for segment in path:gmatch("/([^/]*)") do
    count = count + 1
    segments[count] = segment
  end
  return segments, count
end

-- { names, value } of each variable of a rule.
local function values_of(rule, segments, count)
  local values = {}
  for i, variable in ipairs(rule.variables) do
    local text = table.concat(segments, "/", variable.first, variable.rest and count or variable.last)
    values[i] = { names = variable.names, value = variable.single and decode(text) or decode_some(text) }
  end
  return values
end

-- The rule for a request, and the values of its variables; nil, and the methods that the path is there for.
---@param method string
---@param path string
---@return table|nil rule
---@return table|nil values or the other methods
function Rules:match(method, path)
  local segments, count = split(path)
  local search = { method = method, segments = segments, count = count, verb = "" }
  local whole = segments[count] or ""
  local rest, verb = match(whole, "^(.*):([^:]*)$")
  local rule
  if verb then
    search.verb, segments[count] = verb, rest
    rule = walk(self.root, search, 1)
    if rule then return rule, values_of(rule, segments, count) end
    search.verb, segments[count] = "", whole
  end
  rule = walk(self.root, search, 1)
  if rule then return rule, values_of(rule, segments, count) end
  return nil, search.others
end

return rules
