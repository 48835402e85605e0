-- SPDX-License-Identifier: Apache-2.0
-- The one declaration of what Lua may touch, as LuaJIT reads it and as the compiler does.
local core = require "spec.support.core"
local ffi = require "ffi"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("bridge.h")

-- The header without comments and directives.
local function declarations()
  local text = process.read_file("core/bridge.h"):gsub("//[^\n]*", ""):gsub("\n#[^\n]*", "\n")
  return text
end

-- The names of a declaration such as `const char *a, *b[2];`.
local function names_of(declaration)
  local names = {}
  for part in declaration:gmatch("[^,]+") do
    names[#names + 1] = part:gsub("%b[]", ""):match("([%w_]+)%s*$")
  end
  return names
end

-- { name, fields } of every struct that is defined.
local function structs(text)
  local list = {}
  for name, body in text:gmatch("struct ([%w_]+) (%b{})") do
    local fields = {}
    for declaration in body:sub(2, -2):gmatch("[^;]+;") do
      for _, field in ipairs(names_of(declaration:sub(1, -2))) do fields[#fields + 1] = field end
    end
    list[#list + 1] = { name = name, fields = fields }
  end
  return list
end

local function constants(text)
  local list = {}
  for body in text:gmatch("enum [%w_]*%s*(%b{})") do
    for entry in body:sub(2, -2):gmatch("[^,]+") do list[#list + 1] = entry:match("([%w_]+)") end
  end
  return list
end

local function functions(text)
  local list = {}
  for name in text:gsub("%b{}", ""):gmatch("([%w_]+)%(") do list[#list + 1] = name end
  return list
end

-- What the compiler makes of expressions, by their text.
local function compiled(expressions)
  local directory = posix.temporary_directory()
  local lines = { "#include <stddef.h>", "#include <stdint.h>", "#include <stdbool.h>", "#include <stdio.h>",
    '#include "bridge.h"', "int main(void) {" }
  for _, expression in ipairs(expressions) do
    lines[#lines + 1] = ('printf("%%lld\\n", (long long)(%s));'):format(expression)
  end
  lines[#lines + 1] = "}"
  process.write_file(directory .. "/report.c", table.concat(lines, "\n"))
  local command = ("gcc -Icore -o '%s/report' '%s/report.c' && '%s/report'"):format(directory, directory, directory)
  local output, values = assert(io.popen(command)), {}
  for line in output:lines() do values[#values + 1] = tonumber(line) end
  output:close()
  assert.equal(#expressions, #values)
  os.execute(("rm -r '%s'"):format(directory))
  return values
end

describe("bridge.h", function()
  local text = declarations()

  it("gives every struct the size, and every field the place, that it has in C", function()
    local expressions, expected = {}, {}
    for _, struct in ipairs(structs(text)) do
      local kind = "struct " .. struct.name
      expressions[#expressions + 1] = ("sizeof(%s)"):format(kind)
      expected[#expected + 1] = ffi.sizeof(kind)
      for _, field in ipairs(struct.fields) do
        expressions[#expressions + 1] = ("offsetof(%s, %s)"):format(kind, field)
        expected[#expected + 1] = assert(ffi.offsetof(kind, field), kind .. "." .. field)
      end
    end
    assert.is_true(#structs(text) >= 10)
    for index, value in ipairs(compiled(expressions)) do
      assert.equal(value, expected[index], expressions[index])
    end
  end)

  it("gives every constant its value", function()
    local list = constants(text)
    assert.is_true(#list >= 100)
    for index, value in ipairs(compiled(list)) do assert.equal(value, tonumber(C[list[index]]), list[index]) end
  end)

  it("declares no function that the core does not have", function()
    local list = functions(text)
    assert.is_true(#list >= 80)
    for _, name in ipairs(list) do
      assert.matches("^bridge_", name)
      assert(pcall(function() return C[name] end), name)
    end
  end)

  it("keeps to what ffi.cdef reads", function()
    for line in process.read_file("core/bridge.h"):gmatch("[^\n]+") do
      local directive = line:match("^%s*#%s*(%w+)")
      assert(directive == nil or directive == "pragma", line)
      assert.is_nil(line:find("_Static_assert", 1, true))
    end
  end)
end)
