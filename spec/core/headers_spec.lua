-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("headers.h", "error.h")

describe("fields", function()
  local arena, headers, kept

  local function slice(text)
    kept[#kept + 1] = text
    return ffi.new("struct slice", ffi.cast("const char *", text), #text)
  end

  local function add(name, value)
    return C.headers_add(headers, arena, slice(name), slice(value))
  end

  local function value(field)
    return field ~= nil and ffi.string(field.value.data, field.value.len) or nil
  end

  local function find(name, nth)
    return value(C.headers_find(headers, slice(name), nth or 0))
  end

  local function names(of)
    local list = {}
    for index = 0, of.count - 1 do
      local name = of.fields[index].name
      list[#list + 1] = ffi.string(name.data, name.len)
    end
    return list
  end

  before_each(function()
    kept, arena, headers = {}, ffi.new("struct arena"), ffi.new("struct headers")
    C.arena_init(arena, 1000000)
    C.headers_init(headers, 100)
  end)

  after_each(function() C.arena_close(arena) end)

  it("are found whatever the case of their names, the nth of several in order", function()
    add("X-Many", "1")
    add("Other", "o")
    add("x-MANY", "2")
    assert.same({ "1", "2", nil, "o" }, { find("X-many"), find("x-many", 1), find("x-many", 2), find("OTHER") })
    assert.is_nil(find("X-Man"))
    assert.is_nil(find(""))
  end)

  it("say whether they are the only ones of their name", function()
    add("X-Many", "1")
    add("Other", "o")
    add("x-MANY", "2")
    local several = ffi.new("bool[1]")
    local function only(name)
      local known = C.headers_name(slice(name))
      return value(C.headers_find_only(headers, known, several)), several[0]
    end
    assert.same({ "1", true }, { only("x-many") })
    assert.same({ "o", false }, { only("OTHER") })
    assert.same({ nil, false }, { only("x-none") })
  end)

  it("that the gateway looks at itself are known by number, however they are spelled", function()
    local known = { ["coNNection"] = C.FIELD_CONNECTION, ["Content-LENGTH"] = C.FIELD_CONTENT_LENGTH,
      ["tE"] = C.FIELD_TE, ["X-Forwarded-For"] = C.FIELD_X_FORWARDED_FOR, ["x-real-ip"] = C.FIELD_X_REAL_IP,
      ["Proxy-Connection"] = C.FIELD_PROXY_CONNECTION, ["X-Forwarded-Prefix"] = C.FIELD_X_FORWARDED_PREFIX }
    for name, id in pairs(known) do
      add(name, name)
      assert.equal(name, value(C.headers_find_id(headers, id)))
    end
    for _, name in ipairs { "Content_Length", "Content-Lengths", "X-Forwarded-Fox", "t", "X" } do
      add(name, "1")
      assert.equal(tonumber(C.FIELD_OTHER), headers.fields[headers.count - 1].id)
    end
    assert.is_true(C.headers_find_id(headers, C.FIELD_VIA) == nil)
  end)

  it("of every known id are found by their own names", function()
    local text = io.open("core/headers.h"):read("*a"):match("enum field_id (%b{})")
    local count = 0
    for name in text:gmatch("FIELD_([%w_]+)") do
      if name ~= "OTHER" and name ~= "ID_COUNT" then
        count = count + 1
        add(name:gsub("_", "-"), name)
        assert.equal(name, value(C.headers_find_id(headers, C["FIELD_" .. name])))
      end
    end
    assert.equal(tonumber(C.FIELD_ID_COUNT) - 1, count)
    assert.is_true(count < 32) -- `present` has a bit for each
  end)

  it("are bounded in number", function()
    C.headers_init(headers, 40)
    for index = 1, 40 do assert.equal(0, add("X-" .. index, "v")) end
    assert.equal(tonumber(C.ERROR_INVALID), add("X-41", "v"))
    assert.equal(40, headers.count)
    assert.equal("v", find("x-1"))
  end)

  it("are removed all of one name, and the others keep their order", function()
    for _, name in ipairs { "A", "Via", "B", "via", "C" } do add(name, "1") end
    assert.equal(2, C.headers_remove(headers, slice("VIA")))
    assert.same({ "A", "B", "C" }, names(headers))
    assert.is_true(C.headers_find_id(headers, C.FIELD_VIA) == nil)
    assert.equal(0, C.headers_remove(headers, slice("via")))
  end)

  it("that a service may take for a name are removed with it", function()
    for _, name in ipairs { "X-Consumer-ID", "X_Consumer_Id", "x.consumer.id", "X-Consumer-IDs", "X-Consumer" } do
      add(name, "1")
    end
    assert.equal(3, C.headers_remove_alike(headers, slice("X-Consumer-ID")))
    assert.same({ "X-Consumer-IDs", "X-Consumer" }, names(headers))
  end)

  it("that a service may take for one of several names are removed in one pass", function()
    for _, name in ipairs { "A", "X_Id", "B", "x-user", "Via" } do add(name, "1") end
    assert.equal(2, C.headers_remove_all_alike(headers, ffi.new("struct slice[2]", slice("X-User"), slice("X-Id")), 2))
    assert.same({ "A", "B", "Via" }, names(headers))
    assert.equal("1", value(C.headers_find_id(headers, C.FIELD_VIA)))
  end)

  it("that are set take the place of all of their name, and say so", function()
    for _, name in ipairs { "A", "x-set", "B", "X-SET" } do add(name, "old") end
    assert.equal(0, C.headers_set(headers, arena, slice("X-Set"), slice("new")))
    assert.same({ "A", "B", "X-Set" }, names(headers))
    assert.equal("new", find("x-set"))
    assert.same({ false, true }, { headers.fields[0].replaces, headers.fields[2].replaces })
  end)

  it("that differ in the last byte of a long name, or in case alone, are told apart and together", function()
    for length = 1, 40 do
      local name = ("n"):rep(length - 1)
      add(name .. "a", "a")
      add(name .. "B", "b")
      assert.same({ "a", "b" }, { find((name .. "A"):upper()), find((name .. "b"):lower()) })
    end
  end)

  it("that were copied are changed alone", function()
    local copy = ffi.new("struct headers")
    add("A", "1")
    add("B", "2")
    assert.equal(0, C.headers_copy(copy, headers, arena))
    C.headers_remove(copy, slice("A"))
    C.headers_add(copy, arena, slice("C"), slice("3"))
    assert.same({ { "A", "B" }, { "B", "C" } }, { names(headers), names(copy) })
  end)

  it("have tokens for names, and no control bytes in values", function()
    for _, name in ipairs { "a", "X-1_2.3~", "!#$%&'*+-.^_`|~" } do
      assert.is_true(C.headers_name_is_valid(slice(name)), name)
    end
    for _, name in ipairs { "", "a b", "a:", "a\r", "a\0", "\195\164", "a/b", '"a"', "(a)" } do
      assert.is_false(C.headers_name_is_valid(slice(name)), name)
    end
    for _, text in ipairs { "", "plain", "tab\there", "caf\195\169", " x " } do
      assert.is_true(C.headers_value_is_valid(slice(text)), text)
    end
    for _, text in ipairs { "a\r\nb: c", "a\nb", "a\0", "a\127", "\27" } do
      assert.is_false(C.headers_value_is_valid(slice(text)), text)
    end
  end)

  it("with lists hold a token as a whole member, in any case", function()
    local function has(list, token) return C.headers_list_has(slice(list), slice(token)) end
    for _, list in ipairs { "close", "Close", "keep-alive, close", " ,\tclose ,x", "close,close" } do
      assert.is_true(has(list, "close"), list)
    end
    for _, list in ipairs { "", "closed", "not close", "clo, se", "close;x", "x-close" } do
      assert.is_false(has(list, "close"), list)
    end
  end)
end)
