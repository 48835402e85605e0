-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("store.h")

local registry = debug.getregistry()
if not registry["sluice.spec.core.store"] then
  registry["sluice.spec.core.store"] = true
  ffi.cdef [[
    int sys_store_fork(void) __asm__("fork");
    void sys_store_exit(int) __asm__("_exit");
  ]]
end

local OK, NONE, DIFFERS, INVALID, MEMORY = 0, 2, 3, -1, -2
local NOW, SECOND = 1700000000LL * 1000000, 1000000
local failure = ffi.new("struct error")
local out, key_out, number = ffi.new("struct slice"), ffi.new("struct slice"), ffi.new("int64_t[1]")
local folder, store

local function slice(text)
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

local function open(bytes)
  store = C.store_open(folder .. "/store", bytes or 16 * 2 ^ 20, failure)
  assert(store ~= nil, ffi.string(failure.text))
end

local function set(key, value, ttl, now)
  return C.store_set(store, slice(key), slice(value), ttl or 0, now or NOW, failure)
end

local function get(key, now)
  local status = C.store_get(store, slice(key), now or NOW, out, number, failure)
  if status == NONE then return nil end
  assert.equal(OK, status)
  return ffi.string(out.data, out.len), tonumber(number[0])
end

local function keys(prefix, now)
  local list, after = {}, ""
  while C.store_next(store, slice(prefix), slice(after), now or NOW, key_out, out, nil, failure) == OK do
    after = ffi.string(key_out.data, key_out.len)
    list[#list + 1] = after .. "=" .. ffi.string(out.data, out.len)
  end
  return list
end

local function use()
  local result = ffi.new("struct store_use")
  C.store_use(store, result)
  return result
end

describe("the store", function()
  before_each(function()
    folder = posix.temporary_directory()
    open()
  end)

  after_each(function()
    if store then C.store_close(store) end
    process.remove(folder)
  end)

  it("keeps values of any bytes and size", function()
    local large = ("\0\1\2x"):rep(500000)
    assert.equal(OK, set("a", "1"))
    assert.equal(OK, set("b\0", ""))
    assert.equal(OK, set("c", large))
    assert.equal("1", (get("a")))
    assert.equal("", (get("b\0")))
    assert.is_true(get("c") == large)
    assert.is_nil(get("b"))
    assert.equal(OK, set("a", "2"))
    assert.equal("2", (get("a")))
    assert.equal(3, tonumber(use().entries))
  end)

  it("forgets a value when its time is over", function()
    set("a", "1", 10 * SECOND)
    assert.same({ "1", tonumber(NOW) + 10 * SECOND }, { get("a", NOW + 10 * SECOND - 1) })
    assert.is_nil(get("a", NOW + 10 * SECOND))
    set("a", "1")
    assert.same({ "1", 0 }, { get("a", NOW + 9999 * SECOND) })
  end)

  it("adds only what is not there, or has ended", function()
    local function add(value, now)
      return C.store_add(store, slice("a"), slice(value), SECOND, now, failure)
    end
    assert.equal(OK, add("1", NOW))
    assert.equal(DIFFERS, add("2", NOW))
    assert.equal("1", (get("a")))
    assert.equal(OK, add("3", NOW + SECOND))
    assert.equal("3", (get("a", NOW + SECOND)))
  end)

  it("deletes a key, or all with a prefix, however many", function()
    for i = 1, 2500 do set("p/" .. i, "x") end
    set("p", "1")
    set("q", "1", SECOND)
    assert.equal(2500, tonumber(C.store_delete_prefix(store, slice("p/"), failure)))
    assert.equal(OK, C.store_delete(store, slice("p"), failure))
    assert.equal(NONE, C.store_delete(store, slice("p"), failure))
    assert.same({ "q=1" }, keys(""))
    assert.equal(1, tonumber(C.store_delete_prefix(store, slice(""), failure)))
    assert.same({ 0, 0 }, { tonumber(use().entries), tonumber(use().bytes_used) })
  end)

  it("walks the living keys with a prefix in order, whatever happens between two steps", function()
    for _, key in ipairs { "b/2", "a", "b/1", "b/3", "c" } do set(key, key:upper()) end
    set("b/0", "gone", SECOND)
    assert.same({ "b/1=B/1", "b/2=B/2", "b/3=B/3" }, keys("b/", NOW + SECOND))
    assert.equal(6, #keys(""))
    C.store_next(store, slice("b/"), slice("b/1"), NOW, key_out, out, nil, failure)
    C.store_delete(store, slice("b/2"), failure)
    C.store_next(store, slice("b/"), slice("b/2"), NOW, key_out, out, nil, failure)
    assert.equal("b/3", ffi.string(key_out.data, key_out.len))
  end)

  it("refuses keys and values that it cannot keep", function()
    assert.equal(INVALID, set("", "x"))
    assert.equal(INVALID, set(("k"):rep(481), "x"))
    assert.equal(OK, set(("k"):rep(480), "x"))
    assert.equal(MEMORY, set("large", ("x"):rep(9 * 2 ^ 20)))
    assert.matches("more than it takes", ffi.string(failure.text))
    assert.is_nil(get(("k"):rep(481)))
  end)

  it("makes room within its bound: what has ended goes, then the oldest", function()
    C.store_close(store)
    open(2 ^ 20)
    local value = ("x"):rep(10000)
    set("never", value)
    set("short", value, SECOND)
    for i = 1, 60 do set("old" .. i, value, 3600 * SECOND) end
    assert.equal(0, tonumber(use().evicted))
    for i = 1, 23 do assert.equal(OK, set("new" .. i, value, 0, NOW + 2 * SECOND)) end
    assert.is_true(tonumber(use().bytes_used) <= 2 ^ 20)
    assert.equal(1, tonumber(use().evicted))
    assert.is_nil(get("short"))
    assert.is_not_nil(get("never"))
    set("new24", value)
    assert.is_nil(get("never"))
    assert.is_not_nil(get("old1"))
  end)

  it("stays usable through many times its size of all kinds of values", function()
    C.store_close(store)
    open(2 ^ 20)
    math.randomseed(3)
    local text = ("0123456789abcdef"):rep(8192)
    for i = 1, 6000 do
      local len = math.random() < 0.1 and math.random(#text) or math.random(2000)
      assert.equal(OK, set("k" .. math.random(2000), text:sub(1, len), math.random(3) * SECOND, NOW + i * 1000))
    end
    assert.is_true(tonumber(use().bytes_used) <= 2 ^ 20)
    assert.equal(#keys("", NOW), tonumber(use().entries))
  end)

  it("survives being closed", function()
    set("a", "1")
    C.store_close(store)
    open()
    assert.equal("1", (get("a")))
  end)

  it("begins empty when its file is damaged", function()
    C.store_close(store)
    process.write_file(folder .. "/store/data.mdb", ("garbage "):rep(4096))
    open()
    assert.same({}, keys(""))
    assert.equal(OK, set("a", "1"))
  end)

  it("says why it cannot be opened", function()
    C.store_close(store)
    store = nil
    process.write_file(folder .. "/file", "")
    assert.is_true(C.store_open(folder .. "/file/store", 2 ^ 20, failure) == nil)
    assert.matches("Not a directory", ffi.string(failure.text))
  end)

  it("is one for all processes, also after one was killed in the middle of writing", function()
    C.store_close(store)
    store = nil
    local function child(work)
      local pid = C.sys_store_fork()
      if pid ~= 0 then return pid end
      C.sys_store_exit(pcall(function()
        open()
        work()
      end) and 0 or 1)
    end
    local killed = child(function()
      while true do set("busy", ("x"):rep(5000)) end
    end)
    local writers = {}
    for w = 1, 2 do
      writers[w] = child(function()
        for i = 1, 300 do assert(set(w .. "/" .. i, "v" .. i) == OK) end
      end)
    end
    local code = ffi.new("int[1]")
    for w = 1, 2 do
      posix.C.sys_waitpid(writers[w], code, 0)
      assert.equal(0, code[0])
    end
    posix.C.sys_kill(killed, 9)
    posix.C.sys_waitpid(killed, code, 0)
    open()
    assert.equal(300, #keys("1/"))
    assert.equal("v300", (get("2/300")))
    assert.equal(OK, set("after", "1"))
  end)
end)
