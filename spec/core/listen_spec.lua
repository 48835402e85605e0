-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

describe("listen", function()
  local C = core.load("listen.h", "text.h")
  local tables

  before_each(function() tables = {} end)

  after_each(function()
    for _, table in ipairs(tables) do C.listeners_close(table, nil) end
  end)

  local function specs(...)
    local texts = { ... }
    local raw = ffi.new("struct listen_spec[?]", #texts)
    for index, text in ipairs(texts) do assert.equal(0, C.listen_spec_parse(text, 0, raw + index - 1, nil)) end
    return raw, #texts
  end

  local function open(now, workers, ...)
    local next_table, err = ffi.new("struct listeners"), ffi.new("struct error")
    local raw, count = specs(...)
    local code = C.listeners_open(next_table, now or ffi.new("struct listeners"), raw, count, workers, err)
    if code < 0 then return nil, ffi.string(err.text) end
    tables[#tables + 1] = next_table
    return next_table
  end

  local function address(entry)
    return ffi.string(entry.socket.address)
  end

  it("opens one socket for each worker, all at the same port, also when the kernel chooses it", function()
    local opened = assert(open(nil, 3, "127.0.0.1:0"))
    assert.equal(3, opened.count)
    assert.equal(address(opened.all[0]), address(opened.all[2]))
    assert.not_equal("127.0.0.1:0", address(opened.all[0]))
  end)

  it("keeps address and flags apart", function()
    local raw = specs("0.0.0.0:8443 ssl http2")
    assert.equal("0.0.0.0:8443", ffi.string(raw[0].address))
    assert.equal("ssl http2", ffi.string(raw[0].flags))
  end)

  it("refuses an address without a port", function()
    local spec, err = ffi.new("struct listen_spec"), ffi.new("struct error")
    assert.is_true(C.listen_spec_parse("localhost", 0, spec, err) < 0)
    assert.matches("not an address and port", ffi.string(err.text))
  end)

  it("refuses a port where another program listens, although sockets share ports here", function()
    local first = assert(open(nil, 1, "127.0.0.1:0"))
    local _, why = open(nil, 1, address(first.all[0]))
    assert.matches("cannot listen on 127.0.0.1:%d+ %(gateway.proxy_listen%): Address already in use", why)
  end)

  it("takes over what is open and opens only what is new", function()
    local first = assert(open(nil, 2, "127.0.0.1:0"))
    local second = assert(open(first, 3, "127.0.0.1:0", "127.0.0.1:" .. process.free_port()))
    assert.equal(6, second.count)
    assert.equal(first.all[0].socket.fd, second.all[0].socket.fd)
    assert.equal(first.all[1].socket.fd, second.all[1].socket.fd)
    assert.equal(address(first.all[0]), address(second.all[2]))
    tables[1] = ffi.new("struct listeners") -- the second has them now
    C.listeners_close(first, second)
  end)

  it("leaves what is open alone when something new fails", function()
    local taken = assert(open(nil, 1, "127.0.0.1:0"))
    local first = assert(open(nil, 1, "127.0.0.1:0"))
    assert.is_nil((open(first, 1, "127.0.0.1:0", address(taken.all[0]))))
    local port = tonumber(address(first.all[0]):match(":(%d+)$"))
    local client = assert(net.connect("127.0.0.1", port))
    client:close()
  end)

  it("listens on IPv6", function()
    local opened, why = open(nil, 1, "[::1]:0")
    if not opened and why:find("Cannot assign requested address", 1, true) then return pending("no IPv6 here") end
    assert.matches("^%[::1%]:%d+$", address(opened.all[0]))
  end)

  it("gives every worker the one unix socket", function()
    local dir = posix.temporary_directory()
    local opened = assert(open(nil, 2, "unix:" .. dir .. "/http.sock"))
    local sockets = ffi.new("struct listen_socket[2]")
    assert.equal(1, C.listeners_of(opened, 1, sockets))
    assert.equal(1, C.listeners_of(opened, 2, sockets + 1))
    assert.equal(sockets[0].fd, sockets[1].fd)
    process.remove(dir)
  end)

  it("takes the place of a unix socket that nobody listens on, and of nothing else", function()
    local dir = posix.temporary_directory()
    local path = dir .. "/http.sock"
    local first = assert(open(nil, 1, "unix:" .. path))
    local _, why = open(nil, 1, "unix:" .. path)
    assert.equal(("cannot listen on unix:%s (gateway.proxy_listen): Address already in use"):format(path), why)
    C.listeners_close(table.remove(tables), nil)
    assert.equal(0, first.count)
    assert(open(nil, 1, "unix:" .. path))
    assert(io.open(dir .. "/notes", "w")):close()
    _, why = open(nil, 1, "unix:" .. dir .. "/notes")
    assert.matches("notes %(gateway.proxy_listen%): File exists", why)
    assert(io.open(dir .. "/notes")):close()
    process.remove(dir)
  end)

  it("crosses into a new process as lines of text", function()
    local opened = assert(open(nil, 2, "127.0.0.1:0 ssl"))
    local text, read = ffi.new("struct text"), ffi.new("struct listeners")
    C.listeners_export(opened, text)
    for line in ffi.string(text.data, text.len):gmatch("listen=([^\n]+)") do
      assert.equal(0, C.listeners_import(read, line, nil))
    end
    assert.equal(2, read.count)
    assert.equal(2, read.all[1].worker)
    assert.equal("ssl", ffi.string(read.all[1].socket.flags))
    assert.equal(address(opened.all[0]), address(read.all[0]))
    C.listeners_close(read, opened)
    C.text_free(text)
  end)
end)
