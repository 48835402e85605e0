-- SPDX-License-Identifier: Apache-2.0
-- tcp-log towards real servers, plain and with TLS: the spec is the server.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"

describe("tcp-log", function()
  local listener, port, gw, sockets

  before_each(function()
    listener, port = posix.listen("127.0.0.1", process.free_port())
    sockets = {}
  end)
  after_each(function()
    if gw then gw:stop() end
    for _, socket in ipairs(sockets) do socket:close() end
    if listener then posix.C.sys_close_fd(listener) end
    gw = nil
  end)

  local function start(config)
    config.host, config.port, config.timeout = "127.0.0.1", port, config.timeout or 1000
    config.queue = { max_batch_size = 100, max_coalescing_delay = 0.01, max_retry_delay = 0.1 }
    gw = gateway.start {
      _format_version = "3.0",
      routes = { { name = "all", paths = { "/" }, plugins = {
        { name = "request-termination", config = { status_code = 200, message = "hello" } },
        { name = "tcp-log", config = config },
      } } },
    }
  end

  -- The next connection that the gateway makes.
  local function accept(seconds)
    if not posix.wait_fd(listener, posix.POLLIN, posix.now() + (seconds or 5)) then return nil end
    local socket = net.wrap(posix.accept(listener), 5)
    sockets[#sockets + 1] = socket
    return socket
  end

  local function read_line(socket)
    local text = ""
    while true do
      local line, rest = text:match("^(.-)\n(.*)$")
      if line then
        socket:unread(rest)
        return cjson.decode(line)
      end
      local more, why = socket:receive_some()
      assert(more, why)
      text = text .. more
    end
  end

  it("writes lines of JSON, and keeps its connection", function()
    start { custom_fields_by_lua = { who = "return 'Ada'" } }
    gw:get("/1")
    local socket = accept()
    local record = read_line(socket)
    assert.equal("/1", record.request.uri)
    assert.equal("Ada", record.who)
    gw:get("/2")
    assert.equal("/2", read_line(socket).request.uri)
    assert.is_nil(accept(0))
  end)

  it("makes another connection when the server has closed the one it kept", function()
    start {}
    gw:get("/1")
    local socket = accept()
    read_line(socket)
    socket:close()
    table.remove(sockets)
    local last
    process.wait_until(function()
      gw:get("/2")
      last = accept(0.05)
      return last
    end, 5, "another connection")
    assert.equal("/2", read_line(last).request.uri)
  end)

  it("closes its connection after a batch when it is told to keep none", function()
    start { keepalive = 0 }
    gw:get("/1")
    local socket = accept()
    read_line(socket)
    assert.same({ nil, "closed" }, { socket:receive_some() })
  end)

  it("keeps what it cannot send, and sends it when there is a server", function()
    posix.C.sys_close_fd(listener)
    listener = nil
    start {}
    for i = 1, 5 do assert.equal(200, gw:get("/" .. i).status) end
    listener = posix.listen("127.0.0.1", port)
    local socket = accept(20)
    for i = 1, 5 do assert.equal("/" .. i, read_line(socket).request.uri) end
  end)

  it("gives a connection up that does not come about within its timeout", function()
    start { timeout = 100, tls = true }
    gw:get("/1")
    assert.is_truthy(accept()) -- and no handshake
    gw:wait_log("cannot be sent, trying again", 5)
  end)

  describe("with TLS", function()
    local directory, certificate

    setup(function()
      directory = posix.temporary_directory()
      certificate = tls.make_certificate(directory, { name = "logs.example" })
    end)
    teardown(function() process.remove(directory) end)

    local function accept_tls()
      local socket = accept()
      assert(socket:start_tls { server = true, certificate = certificate.certificate, key = certificate.key })
      return socket
    end

    it("asks for tls_sni, and takes any certificate", function()
      start { tls = true, tls_sni = "logs.example", timeout = 20000 } -- for a handshake with this process
      gw:get("/1")
      local socket = accept_tls()
      assert.equal("logs.example", tls.info(socket).sni)
      assert.equal("/1", read_line(socket).request.uri)
    end)

    it("verifies the certificate when it is told to", function()
      start { tls = true, tls_sni = "logs.example", ssl_verify = true }
      gw:get("/1")
      local socket = accept()
      socket:start_tls { server = true, certificate = certificate.certificate, key = certificate.key }
      table.remove(sockets)
      gw:wait_log("cannot be sent, trying again", 5)
    end)
  end)
end)
