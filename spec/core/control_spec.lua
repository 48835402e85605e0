-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local loop = require "spec.support.loop"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

ffi.cdef [[
int sys_control_accept(int, void *, void *, int) __asm__("accept4");
]]

local SOCK_NONBLOCK = 2048

describe("control", function()
  local main, C, dir, path, listening, server, handler, got, client, on_line

  local function accept()
    main:turn_until(function()
      local fd = ffi.C.sys_control_accept(listening, nil, nil, SOCK_NONBLOCK)
      if fd >= 0 then server = C.control_open(main.raw, fd, handler, nil) end
      return fd >= 0
    end)
  end

  before_each(function()
    main = loop.new("control.h", "text.h")
    C = main.C
    dir = posix.temporary_directory()
    path = dir .. "/control.sock"
    got = { lines = {}, closed = false }
    on_line = nil
    handler = ffi.new("struct control_handler")
    handler.on_line = function(_, line, len)
      got.lines[#got.lines + 1] = ffi.string(line, len)
      if on_line then on_line() end
    end
    handler.on_close = function()
      got.closed = true
      C.control_close(server)
      server = nil
    end
    listening = C.control_listen(path, nil)
    assert.is_true(listening >= 0)
    client = assert(net.connect("unix:" .. path))
    accept()
  end)

  after_each(function()
    if server ~= nil then C.control_close(server) end
    client:close()
    posix.C.sys_close_fd(listening)
    handler.on_line:free()
    handler.on_close:free()
    main:close()
    process.remove(dir)
  end)

  it("gives each line once, however it was cut on the way", function()
    client:send("sta")
    main:turn_for(0.02)
    assert.same({}, got.lines)
    client:send("tus 1\nreload\nqu")
    main:turn_until(function() return #got.lines == 2 end)
    client:send("it\n")
    main:turn_until(function() return #got.lines == 3 end)
    assert.same({ "status 1", "reload", "quit" }, got.lines)
  end)

  it("sends lines, a long one in as many pieces as the socket takes", function()
    local long = ("x"):rep(2 * 1024 * 1024)
    assert.equal(0, C.control_send(server, long, #long))
    assert.equal(0, C.control_send(server, "end", 3))
    local received, size = {}, 0
    main:turn_until(function()
      local piece = client:receive_some(0.001)
      if piece then
        received[#received + 1] = piece
        size = size + #piece
      end
      return size >= #long + 5
    end, 10)
    assert.is_true(table.concat(received) == long .. "\nend\n")
  end)

  it("tells when the peer has gone", function()
    client:close()
    main:turn_until(function() return got.closed end)
  end)

  it("may be closed by the handler of a line, and gives no line after that", function()
    on_line = function()
      C.control_close(server)
      server = nil
    end
    client:send("one\ntwo\n")
    main:turn_until(function() return #got.lines > 0 end)
    main:turn_for(0.02)
    assert.same({ "one" }, got.lines)
    assert.equal("", client:receive_all(1))
  end)

  it("closes after control_finish, once all is sent", function()
    C.control_send(server, "answer", 6)
    C.control_finish(server)
    main:turn_until(function() return got.closed end)
    assert.equal("answer\n", client:receive_all(1))
  end)

  it("ends a peer that sends a line without an end", function()
    local piece = ("x"):rep(65536)
    main:turn_until(function()
      if not got.closed then client:send(piece) end
      return got.closed
    end, 20)
    assert.same({}, got.lines)
  end)

  it("lets nobody else use the socket", function()
    local mode = io.popen(("stat -c %%a '%s'"):format(path)):read("*l")
    assert.equal("600", mode)
  end)

  it("takes a path that is longer than a socket's address", function()
    local deep = dir .. "/" .. ("d"):rep(120)
    assert.equal(0, os.execute(("mkdir '%s'"):format(deep)))
    local err = ffi.new("struct error")
    local fd = C.control_listen(deep .. "/control.sock", err)
    assert.is_true(fd >= 0, ffi.string(err.text))
    posix.C.sys_close_fd(fd)
    assert.equal(0, os.execute(("test -S '%s/control.sock'"):format(deep)))
  end)
end)
