-- SPDX-License-Identifier: Apache-2.0
-- Texts with Lua in them, compiled once:
--
--   {{ expression }}  its value, written so that it is one value of the format and nothing else
--   {* expression *}  the same as it is
--   {% statements %}  run; they may stand around text: {% for i, item in ipairs(body.items) do %} ... {% end %}
--
-- Code sees the names that the caller gives, and pure libraries. It cannot set globals.

local json = require "sluice.json"
local native = package.loaded["sluice.native"] and require "sluice.ffi"
local query = require "sluice.query"
local xml = require "sluice.xml"

local concat, find, format, gsub, sub = table.concat, string.find, string.format, string.gsub, string.sub
local tostring, type = tostring, type

local on_error = native and native.on_error or tostring -- specs run in a plain Lua too

local document = {}

local MOST_BYTES = 64 * 1024 * 1024 -- of one result

local function copy(library)
  local own = {}
  for name, value in pairs(library) do own[name] = value end
  return own
end

-- Copies, since what one template does to a library is no other's business.
local ENV = setmetatable({
  string = copy(string), table = copy(table), math = copy(math), os = { time = os.time, date = os.date },
  tostring = tostring, tonumber = tonumber, type = type, pairs = pairs, ipairs = ipairs, next = next, select = select,
  unpack = unpack, error = error, json = function(value) return (json.encode(value)) end, null = json.null,
}, {
  __index = function(_, name) error("undefined name '" .. tostring(name) .. "'", 2) end,
  __newindex = function(_, name) error("a template cannot set '" .. tostring(name) .. "'; use local", 2) end,
})

-- ---- How values are written ----

local function plain(value)
  if value == nil or value == json.null then return "" end
  if type(value) == "table" then return (assert(json.encode(value))) end
  return tostring(value)
end

local WRITE = {
  json = function(value) return (assert(json.encode(value))) end,
  xml = function(value)
    if type(value) == "table" then return (assert(xml.encode(value))) end
    return (xml.escape(plain(value)))
  end,
  form = function(value) return (query.escape(plain(value))) end,
  plain = plain,
}

---@type string[]
document.formats = { "json", "xml", "form", "plain" }

-- ---- Compiling ----

local CLOSE = { ["{{"] = "}}", ["{*"] = "*}", ["{%"] = "%}" }

-- The line of a place in the text.
local function line_of(text, at)
  local _, count = gsub(sub(text, 1, at - 1), "\n", "")
  return count + 1
end

local function next_tag(text, from)
  local at = find(text, "{[{*%%]", from)
  return at, at and sub(text, at, at + 1)
end

-- Line feeds stay where they are, so that errors tell the lines of the template.
local function code_of(text)
  local pieces, from = {}, 1
  while true do
    local at, open = next_tag(text, from)
    local literal = sub(text, from, (at or 0) - 1)
    if literal ~= "" then pieces[#pieces + 1] = format(" __put(%q)", literal) end
    if not at then break end
    local stop = find(text, CLOSE[open], at + 2, true)
    if not stop then return nil, format("line %d: expected %s behind %s", line_of(text, at), CLOSE[open], open) end
    local code = sub(text, at + 2, stop - 1)
    if open == "{%" then
      pieces[#pieces + 1] = " " .. code .. " "
    else
      pieces[#pieces + 1] = (open == "{{" and " __put(__write(" or " __put(__plain(") .. code .. "))"
    end
    from = stop + 2
  end
  return concat(pieces)
end

-- The message of an error, without a traceback.
local function with_line(message)
  return (gsub(gsub(tostring(message), "\nstack traceback:.*$", ""), "^template:(%d+): ", "line %1: "))
end

-- An expression may be nothing but that: `1) os.exit(` is none, nor is a statement where a value is wanted.
local function check_expressions(text)
  local from = 1
  while true do
    local at, open = next_tag(text, from)
    if not at then return true end
    local stop = find(text, CLOSE[open], at + 2, true)
    if not stop then return true end -- told by code_of
    if open ~= "{%" then
      local code = sub(text, at + 2, stop - 1)
      local chunk, why = loadstring("return (" .. code .. "\n)", "=template")
      if not chunk then
        return nil, format("line %d: %s", line_of(text, at), (gsub(why, "^template:%d+: ", "")))
      end
    end
    from = stop + 2
  end
end

-- What gathers the pieces of one result.
local function collector()
  local out, count, bytes = {}, 0, 0
  return out, function(text)
    count = count + 1
    out[count] = text
    bytes = bytes + #text
    if bytes > MOST_BYTES then error("the result is larger than " .. MOST_BYTES .. " bytes", 0) end
  end
end

-- A function that makes the text: it takes a table of the values that the names stand for, and gives the text, or nil
-- and why not.
---@param text string
---@param output "json"|"xml"|"form"|"plain" what {{ }} writes values for
---@param names string[] that code sees
---@return (fun(values: table): string|nil, string|nil)|nil
---@return string|nil err with the line
function document.compile(text, output, names)
  local fine, err = check_expressions(text)
  if not fine then return nil, err end
  local code
  code, err = code_of(text)
  if not code then return nil, err end
  local chunk
  chunk, err = load(format("local __put, __write, __plain%s = ...%s", #names > 0 and ", " .. concat(names, ", ") or "",
    code), "=template", "t", ENV)
  if not chunk then return nil, with_line(err) end
  local write, count = WRITE[output], #names
  return function(values)
    local out, put = collector()
    local list = {}
    for i = 1, count do list[i] = values[names[i]] end
    -- Not pcall, which would swallow the end of the CPU budget.
    local ok, why = xpcall(chunk, on_error, put, write, plain, unpack(list, 1, count))
    if not ok then return nil, with_line(why) end
    return concat(out)
  end
end

return document
