-- SPDX-License-Identifier: Apache-2.0
-- The suite of tests that JSON Schema publishes (`make peers` fetches it), every draft of it, optional parts included.
-- What is left out is listed here, with why.
require "spec.lua.support.native"
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"
local lfs = require "lfs"
local process = require "spec.support.process"

local home = os.getenv("SLUICE_HOME") or "."
local ROOT = home .. "/.cache/peers/json-schema"

local DRAFTS = { draft4 = "4", draft6 = "6", draft7 = "7", ["draft2019-09"] = "2019-09", ["draft2020-12"] = "2020-12" }

-- Files of optional parts, by what they end with.
local LEFT_OUT = {
  ["format/idn-hostname.json"] = "nothing is asserted of it: it takes Unicode's tables of IDNA",
  ["format/idn-email.json"] = "nothing is asserted of it, as of idn-hostname",
  ["optional/content.json"] = "content is for whoever reads the value",
  ["optional/zeroTerminatedFloats.json"] = "1.0 is an integer in later drafts, and numbers keep no decimals here",
}

local function read(path)
  local value, err = json.decode(process.read_file(path))
  if err then error(path .. ": " .. err) end
  return value
end

local function files(folder, extension)
  local list = {}
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    local mode = name:sub(1, 1) ~= "." and lfs.attributes(path, "mode")
    if mode == "directory" then
      for _, one in ipairs(files(path, extension)) do list[#list + 1] = one end
    elseif mode == "file" and (not extension or name:sub(-#extension) == extension) then
      list[#list + 1] = path
    end
  end
  table.sort(list)
  return list
end

-- What references of the suite may name: its remotes, under their address, and the drafts' own schemas.
local function documents()
  local all = {}
  for _, path in ipairs(files(ROOT .. "/json/remotes", ".json")) do
    all["http://localhost:1234/" .. path:sub(#(ROOT .. "/json/remotes/") + 1)] = read(path)
  end
  for _, path in ipairs(files(ROOT .. "/jsonschema_specifications/schemas")) do
    local schema = read(path)
    all[schema["$id"] or schema.id] = schema
  end
  return all
end

local function reason_to_skip(path)
  for ending, why in pairs(LEFT_OUT) do
    if path:sub(-#ending) == ending then return why end
  end
end

local function options_for(path, draft, known)
  -- In later drafts `format` asserts where it is asked to; the tests of the main part say that it does not.
  local formats = path:find("/optional/format/", 1, true) or path:find("ecmascript-regex", 1, true)
  return { draft = draft, documents = known, formats = formats ~= nil }
end

local function failures(path, draft, known)
  local list = {}
  for _, group in ipairs(read(path)) do
    local schema, err = json_schema.compile(group.schema, options_for(path, draft, known))
    if not schema then list[#list + 1] = group.description .. ": " .. err end
    for _, test in ipairs(schema and group.tests or {}) do
      local ok, errors = schema:validate(test.data)
      if ok ~= test.valid then
        list[#list + 1] = ("%s: %s: expected %s%s"):format(group.description, test.description,
          test.valid and "valid" or "invalid", errors and errors[1] and ", " .. json_schema.text(errors[1]) or "")
      end
    end
  end
  return list
end

describe("JSON Schema's own tests", function()
  local known

  setup(function()
    assert(lfs.attributes(ROOT .. "/json/tests"), "the suite is not there: make peers")
    known = documents()
  end)

  for folder, draft in pairs(DRAFTS) do
    local present = lfs.attributes(ROOT .. "/json/tests/" .. folder)
    for _, path in ipairs(present and files(ROOT .. "/json/tests/" .. folder, ".json") or {}) do
      local name = path:match("/tests/(.*)%.json$")
      if not reason_to_skip(path) then
        it("of " .. name, function() assert.same({}, failures(path, draft, known)) end)
      end
    end
  end

  -- A copy in which one place, chosen by chance, holds something else.
  local function spoilt(value, strange)
    if type(value) ~= "table" or math.random() < 0.15 then return strange[math.random(#strange)] end
    local copy, names = json.is_array(value) and json.array() or {}, {}
    for name, member in pairs(value) do
      copy[name] = member
      names[#names + 1] = name
    end
    if #names == 0 then return strange[math.random(#strange)] end
    table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
    local name = names[math.random(#names)]
    copy[name] = spoilt(copy[name], strange)
    return copy
  end

  it("are refused or used, and raise nothing, when they are spoilt at random", function()
    math.randomseed(20260101)
    local strange = { true, false, json.null, 0, -1, 1.5, 1e300, "", "a", "#", "#/a~1b/%", "(", "$ref", json.array(),
      json.array { 1 }, {}, { a = {} }, { ["$ref"] = "#" }, { type = "string" }, json.array { "a", "a" } }
    local used, refused = 0, 0
    for folder, draft in pairs(DRAFTS) do
      for _, path in ipairs(files(ROOT .. "/json/tests/" .. folder, ".json")) do
        for _, group in ipairs(read(path)) do
          local schema, err = json_schema.compile(spoilt(group.schema, strange), options_for(path, draft, known))
          if not schema then
            assert.is_string(err)
            refused = refused + 1
          else
            used = used + 1
            for _, test in ipairs(group.tests) do
              local ok, errors = schema:validate(spoilt(test.data, strange))
              if not ok then assert.is_string(json_schema.text(errors[1])) end
            end
          end
        end
      end
    end
    assert.is_true(used > 100 and refused > 100)
  end)

  it("are there", function() assert.is_true(#files(ROOT .. "/json/tests", ".json") > 300) end)
end)
