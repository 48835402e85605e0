-- SPDX-License-Identifier: Apache-2.0
local buffer = require "string.buffer"
local cjson = require "cjson"
local lfs = require "lfs"
local loading = require "spec.lua.config.loading"
local snapshot = require "sluice.snapshot"

local function list_of(count)
  local list = {}
  for i = 1, count do list[i] = i end
  return list
end

describe("a snapshot's encoding", function()
  it("is read back by string.buffer", function()
    local values = { {}, { a = 1 }, { 1, 2, 3 }, { 1, x = { y = {} } }, { s = ("x"):rep(300) },
      { s = ("x"):rep(100000) }, { [5] = 1, [3] = "a", x = 2 }, { n = -1.5, z = 0, big = 2 ^ 40, t = true, f = false },
      list_of(224), list_of(8000), { null = cjson.null }, { [""] = "" } }
    for _, value in ipairs(values) do assert.same(value, buffer.decode(snapshot.encode(value))) end
  end)

  it("is string.buffer's own where order cannot differ", function()
    for _, value in ipairs { list_of(300), { a = { b = { c = 1 } } }, { ("y"):rep(8200) }, { -0.0, 1e300 } } do
      assert.equal(buffer.encode(value), snapshot.encode(value))
    end
  end)

  it("does not depend on the order in which a table was filled", function()
    local names = {}
    for i = 1, 40 do names[i] = "key" .. i end
    local one, other = {}, {}
    for i = 1, 40 do one[names[i]] = i end
    for i = 40, 1, -1 do other[names[i]] = i end
    assert.equal(snapshot.encode(one), snapshot.encode(other))
    assert.equal(snapshot.encode(one), snapshot.encoder(names)(other))
  end)

  it("refuses what has no bytes", function()
    assert.has_error(function() snapshot.encode { print } end, "a snapshot cannot hold a function")
  end)
end)

describe("a snapshot", function()
  local dir

  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(snapshot.folder(dir))
  end)

  after_each(function()
    for name in lfs.dir(dir .. "/snapshots") do os.remove(dir .. "/snapshots/" .. name) end
    lfs.rmdir(dir .. "/snapshots")
    lfs.rmdir(dir)
  end)

  local function files()
    local names = {}
    for name in lfs.dir(dir .. "/snapshots") do
      if name:sub(1, 1) ~= "." then names[#names + 1] = name end
    end
    table.sort(names)
    return names
  end

  local TEXT = [[
routes: [{name: r, paths: [/], service: s, plugins: [{name: hello}]}]
services: [{name: s, host: up}]
upstreams: [{name: up, targets: [{target: "h:1"}]}]
consumers: [{username: bob, keyauth_credentials: [{key: k}]}]
]]

  it("has its records in the order in which they are needed", function()
    local path = assert(snapshot.write(dir .. "/snapshots", 7, loading.good(TEXT):records(7)))
    local reader, kinds = assert(snapshot.open(path)), {}
    for bytes in function() return reader:next() end do kinds[#kinds + 1] = reader.decode(bytes).kind end
    assert.same({ "meta", "plugin_code", "upstream", "target", "service", "consumer", "keyauth_credentials", "route",
      "plugin" }, kinds)
  end)

  it("begins with its revision, the gateway's settings and counts", function()
    local meta = snapshot.decode(loading.good(TEXT):records(7)[1])
    assert.same({ 7, 1, "notice" }, { meta.revision, meta.counts.routes, meta.gateway.log.level })
  end)

  it("has the same bytes for the same configuration, and changes only what changed", function()
    local before, again = loading.good(TEXT):records(1), loading.good(TEXT):records(1)
    assert.same(before, again)
    local after = loading.good((TEXT:gsub("paths: %[/%]", "paths: [/x]"))):records(1)
    local changed = {}
    for i, bytes in ipairs(after) do
      if bytes ~= before[i] then changed[#changed + 1] = snapshot.decode(bytes).kind end
    end
    assert.same({ "route" }, changed)
  end)

  it("can be read by nobody but its owner", function()
    local path = assert(snapshot.write(dir .. "/snapshots", 1, { "x" }))
    assert.equal("rw-------", lfs.attributes(path, "permissions"))
  end)

  it("keeps a few before it and leaves no unfinished file", function()
    for revision = 1, 6 do assert(snapshot.write(dir .. "/snapshots", revision, { "x" })) end
    assert.same({ "3", "4", "5", "6" }, files())
    assert.equal(7, snapshot.next_revision(dir .. "/snapshots"))
  end)

  it("that has no place is not written, and why is told", function()
    local function refused(path)
      local _, why = snapshot.folder(path)
      return why
    end
    assert.equal("cannot make the folder /dev/null: File exists", refused("/dev/null/state"))
    local _, why = snapshot.write("/dev/null", 1, { "x" })
    assert.equal("cannot write /dev/null/1.tmp: Not a directory", why)
  end)

  -- What waits in a buffer is refused as late as the file is closed.
  it("that a full disk does not take is not taken for written", function()
    local ok, why = snapshot.finish(assert(io.open("/dev/full", "wb")), "x")
    assert.is_nil(ok)
    assert.equal("No space left on device", why)
    assert.is_true(snapshot.finish(assert(io.open("/dev/null", "wb")), "x"))
  end)

  it("that is cut short is noticed", function()
    local path = assert(snapshot.write(dir .. "/snapshots", 1, { "whole", "cut" }))
    local file = assert(io.open(path, "rb"))
    local bytes = file:read("*a")
    file:close()
    file = assert(io.open(path, "wb"))
    file:write(bytes:sub(1, -2))
    file:close()
    local reader = snapshot.open(path)
    assert.equal("whole", reader:next())
    assert.has_error(function() reader:next() end, "the snapshot is cut short")
  end)
end)
