-- SPDX-License-Identifier: Apache-2.0
-- `sluice plugin new NAME`: a plugin that works, to be changed into the one that is wanted.

local lfs = require "lfs"
local options = require "sluice.cli.options"

local new = {}

local templates = {}

templates["handler.lua"] = [[
-- NAME/handler.lua: greets every client by adding one response header.
local IDENT = { version = "0.1.0", priority = 10 }

function IDENT.header_filter(conf, exchange)
  exchange.response:set_header("X-TITLE", conf.greeting)
end

return IDENT
]]

templates["schema.lua"] = [[
-- NAME/schema.lua: what a configuration may say.
return {
  greeting = { type = "string", default = "hello", len_max = 64, about = "text of the X-TITLE header" },
}
]]

templates["README.md"] = [[
# NAME

Greets every client by adding one response header.

```yaml
plugins:
  - name: NAME
    config:
      greeting: ahoy
```

<!-- options -->
| option | type | default | about |
|---|---|---|---|
| `greeting` | string, at most 64 characters | `"hello"` | text of the X-TITLE header |
<!-- /options -->

`sluice plugin test NAME` runs its specs; `sluice plugin docs NAME --write` renews the table above.
]]

templates["spec/NAME_spec.lua"] = [[
-- NAME/spec/NAME_spec.lua
local spec = require "sluice.spec"

describe("NAME", function()
  it("greets with the configured text", function()
    local gateway = spec.gateway { plugins = { { name = "NAME", config = { greeting = "ahoy" } } } }
    assert.equal("ahoy", gateway:get("/any").headers["x-LOWER"])
  end)

  it("refuses a greeting that is no text", function()
    local _, err = spec.check { plugins = { { name = "NAME", config = { greeting = 7 } } } }
    assert.matches("config.greeting: expected a string, found a number", err)
  end)
end)
]]

-- What the templates have for the name: as it is, as a Lua variable, as a header.
local function words(name)
  local ident = name:gsub("[^%w]", "_")
  if not loadstring("local " .. ident) then ident = "plugin" end
  local lower = name:gsub("_", "-")
  local title = (lower:gsub("%f[%w]%l", string.upper))
  return { NAME = name, IDENT = ident, TITLE = title, LOWER = lower }
end

local function fill(text, with)
  return (text:gsub("%f[%u]%u%u%u%u%u?%f[%U]", with))
end

local function write(path, text)
  local file, why = io.open(path, "wb")
  if not file then return nil, why end
  local written, problem = file:write(text)
  local closed, other = file:close()
  if written and closed then return true end
  return nil, ("%s: %s"):format(path, problem or other)
end

local function make_folder(path)
  if lfs.attributes(path, "mode") == "directory" then return true end
  local made, why = lfs.mkdir(path)
  if made then return true end
  return nil, ("%s: %s"):format(path, why)
end

-- True, or nil and why.
local function make(name, dir)
  local with = words(name)
  for _, folder in ipairs { dir, dir .. "/" .. name, dir .. "/" .. name .. "/spec" } do
    local made, why = make_folder(folder)
    if not made then return nil, why end
  end
  for path, text in pairs(templates) do
    local written, why = write(("%s/%s/%s"):format(dir, name, fill(path, with)), fill(text, with))
    if not written then return nil, why end
  end
  return true
end

local function complain(text)
  io.stderr:write("sluice: ", text, "\n")
  return 1
end

local function check(name, dir, host)
  if not name:find("^%l[%l%d_-]*$") then
    options.fail("%s: a plugin's name begins with a small letter and has small letters, digits, - and _", name)
  end
  if lfs.attributes(dir .. "/" .. name) then return ("%s/%s exists already"):format(dir, name) end
  if lfs.attributes(host.home .. "/plugins/" .. name) then
    return ("%s is the name of a bundled plugin, which it would replace"):format(name)
  end
end

function new.run(args, host)
  local parsed = options.parse(args, { { "--dir", key = "dir", value = "DIR" } }, 1)
  local name, dir = parsed[1], parsed.dir or "./plugins"
  if not name then options.fail("expected a name") end
  local objection = check(name, dir, host)
  if objection then return complain(objection) end
  local made, why = make(name, dir)
  if not made then return complain("cannot write " .. why) end
  print(("%s/%s: handler.lua, schema.lua, README.md, spec/%s_spec.lua"):format(dir, name, name))
  print(("`sluice plugin test %s --watch` runs its specs at every save."):format(name))
  return 0
end

return new
