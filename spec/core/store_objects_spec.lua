-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("store_objects.h")

local registry = debug.getregistry()
if not registry["sluice.spec.core.store"] then
  registry["sluice.spec.core.store"] = true
  ffi.cdef [[
    int sys_store_fork(void) __asm__("fork");
    void sys_store_exit(int) __asm__("_exit");
  ]]
end

local OK, NONE, MEMORY = 0, 2, -2
local NOW, SECOND = 1700000000LL * 1000000, 1000000
local CHUNK = C.OBJECT_CHUNK
local failure = ffi.new("struct error")
local found, number = ffi.new("struct object"), ffi.new("uint64_t[1]")
local chunk = ffi.new("char[?]", CHUNK)
local folder, objects

local function slice(text)
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

local function hash(text)
  return ffi.cast("const unsigned char *", (text .. ("\0"):rep(16)):sub(1, 16))
end

local function open(bytes)
  objects = C.objects_open(folder .. "/responses", bytes or 16 * 2 ^ 20, failure)
  assert(objects ~= nil, ffi.string(failure.text))
end

local function reopen(bytes)
  C.objects_close(objects)
  open(bytes)
end

-- A record; options: id, body (a writer), names, replaces, now.
local function put(key, head, options)
  options = options or {}
  local anchor = (key .. ("\0"):rep(16)):sub(1, 16)
  local names = options.names or {}
  local slices = ffi.new("struct slice[?]", #names + 1)
  for i, name in ipairs(names) do slices[i - 1] = slice(name) end
  local replaces = ffi.new("uint64_t[?]", 8, options.replaces or {})
  local what = ffi.new("struct object_put", { hash = ffi.cast("const unsigned char *", anchor), id = options.id or 0,
    body = options.body, head = slice(head), rest = slice(options.rest or ""), names = slices, name_count = #names,
    replaces = replaces, replace_count = #(options.replaces or {}) })
  local status = C.objects_put(objects, what, options.now or NOW, number, failure)
  return status, number[0]
end

local function payloads(key)
  local list = {}
  local status = C.objects_begin(objects, hash(key), found)
  local any = status == OK
  while status == OK do
    list[#list + 1] = ffi.string(found.payload.data, found.payload.len)
    status = C.objects_next(objects, found)
  end
  if any then C.objects_end(objects) end
  assert.equal(NONE, status)
  return list
end

local function write(writer, text, now)
  return C.objects_write(objects, writer, slice(text), now or NOW, failure)
end

local function read(id, index)
  local len = C.objects_read(objects, id, index, chunk)
  return len >= 0 and ffi.string(chunk, len) or nil
end

local function use()
  local result = ffi.new("struct objects_use")
  C.objects_use(objects, result)
  return { entries = tonumber(result.entries), bytes = tonumber(result.bytes_used) }
end

local function purge(name, prefix, now)
  return tonumber(C.objects_purge(objects, slice(name), prefix or false, now or NOW))
end

describe("objects", function()
  before_each(function()
    folder = posix.temporary_directory()
    open()
  end)

  after_each(function()
    if objects then C.objects_close(objects) end
    objects = nil
    process.remove(folder)
  end)

  it("keeps records under a hash, the youngest first", function()
    assert.same({}, payloads "a")
    assert.equal(OK, (put("a", "one")))
    assert.equal(OK, (put("a", "two", { rest = " and more" })))
    assert.equal(OK, (put("b", "other")))
    assert.same({ "two and more", "one" }, payloads "a")
    assert.same({ "other" }, payloads "b")
    assert.same({}, payloads "c")
    assert.equal(3, use().entries)
  end)

  it("replaces a record, or others of its hash", function()
    local _, first = put("a", "one")
    local _, second = put("a", "two")
    assert.equal(OK, (put("a", "one again", { id = first })))
    assert.same({ "two", "one again" }, payloads "a")
    assert.equal(OK, (put("a", "three", { replaces = { first, second } })))
    assert.same({ "three" }, payloads "a")
    assert.equal(1, use().entries)
  end)

  it("keeps bodies in chunks, with a record and without the bytes of one that is given up", function()
    local writer = ffi.new("struct object_writer")
    assert.equal(OK, write(writer, ("x"):rep(CHUNK)))
    assert.equal(OK, write(writer, "the rest"))
    local _, id = put("a", "head", { body = writer })
    assert.equal(("x"):rep(CHUNK), read(id, 0))
    assert.equal("the rest", read(id, 1))
    assert.is_nil(read(id, 2))
    local before = use().bytes
    writer = ffi.new("struct object_writer")
    assert.equal(OK, write(writer, ("y"):rep(CHUNK)))
    local other = writer.id
    assert.is_true(use().bytes > before)
    C.objects_abandon(objects, writer)
    assert.is_nil(read(other, 0))
    assert.equal(before, use().bytes)
  end)

  it("keeps the body when its record is replaced", function()
    local writer = ffi.new("struct object_writer")
    write(writer, "body")
    local _, id = put("a", "head", { body = writer })
    assert.equal(OK, (put("a", "newer head", { id = id })))
    assert.equal("body", read(id, 0))
    assert.same({ "newer head" }, payloads "a")
  end)

  it("keeps the body of what is removed for those who read it, for a while", function()
    local writer = ffi.new("struct object_writer")
    write(writer, "body")
    local _, id = put("a", "head", { body = writer })
    assert.equal(1, tonumber(C.objects_remove(objects, hash "a", id, NOW)))
    assert.same({}, payloads "a")
    assert.equal("body", read(id, 0))
    put("b", "another", { now = NOW + 120 * SECOND })
    assert.is_nil(read(id, 0))
  end)

  it("removes all of a hash", function()
    put("a", "one")
    put("a", "two")
    put("b", "three")
    assert.equal(2, tonumber(C.objects_remove(objects, hash "a", 0, NOW)))
    assert.same({}, payloads "a")
    assert.same({ "three" }, payloads "b")
  end)

  it("purges by name and by the beginning of one", function()
    put("a", "1", { names = { "uhost/one", "tred" } })
    put("b", "2", { names = { "uhost/one/two", "tred" } })
    put("c", "3", { names = { "uhost/three", "tredder" } })
    assert.equal(0, purge "uhost/o")
    assert.equal(1, purge "uhost/one")
    assert.same({}, payloads "a")
    assert.equal(1, purge "tred")
    assert.same({}, payloads "b")
    assert.equal(1, purge("t", true))
    assert.same({}, payloads "c")
    assert.equal(0, purge("", true))
    assert.equal(0, use().entries)
  end)

  it("purges any number in steps", function()
    for i = 1, 250 do put("k" .. i, "x", { names = { "u/" .. i } }) end
    assert.equal(200, purge("u/", true))
    assert.equal(50, purge("u/", true))
    assert.equal(0, purge("u/", true))
  end)

  it("is bounded: what has not been used for the longest time makes room", function()
    local text = ("x"):rep(40000)
    for i = 1, 60 do put("k" .. i, text) end
    reopen(4 * 2 ^ 20)
    for i = 61, 300 do
      put("k" .. i, text)
      if C.objects_begin(objects, hash "k150", found) == OK then
        C.objects_end(objects)
        if i % 20 == 0 then C.objects_touch(objects, hash "k150", found.id) end
      end
    end
    assert.is_true(use().bytes <= 4 * 2 ^ 20)
    assert.equal(0, #payloads "k60")
    assert.equal(0, #payloads "k100")
    assert.equal(1, #payloads "k150")
    assert.equal(1, #payloads "k300")
    assert.equal(0, #payloads "k190")
  end)

  it("says which one has not been used for long", function()
    for i = 1, 300 do put("k" .. i, ("x"):rep(40000)) end
    local function is_cold(key)
      assert.equal(OK, C.objects_begin(objects, hash(key), found))
      C.objects_end(objects)
      return found.cold
    end
    assert.is_true(is_cold "k5")
    assert.is_false(is_cold "k300")
    C.objects_touch(objects, hash "k5", found.id) -- not its own: there is no such object
    assert.is_true(is_cold "k5")
    C.objects_touch(objects, hash "k5", found.id)
    assert.is_false(is_cold "k5")
  end)

  it("makes room for large bodies, and refuses what is larger than half of it", function()
    reopen(4 * 2 ^ 20)
    for round = 1, 10 do
      local writer = ffi.new("struct object_writer")
      for _ = 1, 20 do assert.equal(OK, write(writer, ("x"):rep(CHUNK))) end
      assert.equal(OK, (put("large" .. round, "head", { body = writer })))
    end
    assert.is_true(use().bytes <= 4 * 2 ^ 20)
    assert.same({ "head" }, payloads "large10")
    assert.same({}, payloads "large1")
    local writer = ffi.new("struct object_writer")
    local status
    for _ = 1, 40 do
      status = write(writer, ("x"):rep(CHUNK))
      if status ~= OK then break end
    end
    assert.equal(MEMORY, status)
    C.objects_abandon(objects, writer)
  end)

  it("survives a restart, and takes up what a writer that died has left", function()
    local writer = ffi.new("struct object_writer")
    put("a", "one", { names = { "uone" } })
    local before = use().bytes
    write(writer, "left behind")
    reopen()
    assert.same({ "one" }, payloads "a")
    assert.equal("left behind", read(writer.id, 0))
    local id = ({ put("b", "two", { now = NOW + 7200 * SECOND }) })[2]
    assert.is_nil(read(writer.id, 0))
    C.objects_remove(objects, hash "b", id, NOW)
    assert.equal(before, use().bytes)
    assert.equal(1, purge("uone"))
  end)

  it("begins empty when its files are spoilt, cut off, or of an earlier boot of the machine", function()
    for _, spoil in ipairs {
      function(path) process.write_file(path .. "/data.mdb", ("rubbish"):rep(10000)) end,
      function(path)
        local text = process.read_file(path .. "/data.mdb")
        process.write_file(path .. "/data.mdb", text:sub(1, 3 * 4096))
      end,
      function(path) process.write_file(path .. "/boot", "another boot\n") end,
    } do
      for i = 1, 20 do put("k" .. i, ("x"):rep(5000)) end
      C.objects_close(objects)
      objects = nil
      spoil(folder .. "/responses")
      open()
      assert.same({}, payloads "k1")
      assert.equal(OK, (put("k1", "new")))
      assert.same({ "new" }, payloads "k1")
    end
  end)

  it("is shared by processes", function()
    local child = C.sys_store_fork()
    if child == 0 then
      open()
      put("a", "from the child")
      C.sys_store_exit(0)
    end
    process.wait_until(function() return #payloads "a" > 0 end, 5, "the child's object")
    assert.same({ "from the child" }, payloads "a")
  end)
end)
