-- SPDX-License-Identifier: Apache-2.0
-- The client and the upstream of the specs, against each other.
local cjson = require "cjson"
local http = require "spec.support.http"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

describe("the upstream of the specs", function()
  local up

  setup(function() up = upstream.start() end)
  teardown(function() up:stop() end)
  before_each(function() up:forget() end)

  it("echoes a request as JSON", function()
    local response = http.request(up.port,
      { method = "PUT", path = "/a?b=c", headers = { ["X-One"] = "1" }, body = "text" })
    local seen = cjson.decode(response.body)
    assert.equal(200, response.status)
    assert.equal("PUT", seen.method)
    assert.equal("/a?b=c", seen.target)
    assert.equal("1", seen.headers["x-one"])
    assert.equal("text", seen.body)
  end)

  it("reads a chunked body with its trailers", function()
    local response = http.request(up.port, {
      method = "POST", headers = { ["Transfer-Encoding"] = "chunked" },
      body = "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-End: yes\r\n\r\n",
    })
    local seen = cjson.decode(response.body)
    assert.equal("abcde", seen.body)
    assert.same({ { "X-End", "yes" } }, seen.trailers)
  end)

  it("counts connections and requests, its own questions excepted", function()
    local client = http.connect(up.port)
    client:request({})
    client:request({ path = "/again" })
    http.get(up.port, "/")
    local stats = up:stats()
    assert.equal(2, stats.connections)
    assert.equal(3, stats.requests)
    assert.equal("/again", stats.log[2].target)
    client:close()
  end)

  it("streams chunks and a body of a given length", function()
    local response = http.get(up.port, "/chunked/2500")
    assert.equal(2500, #response.body)
    assert.equal(3, response.chunks)
    assert.equal(300000, #http.get(up.port, "/bytes/300000").body)
  end)

  it("serves one connection while another waits", function()
    local slow = http.connect(up.port)
    slow:send("GET /delay/5 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.equal(200, http.get(up.port, "/").status)
    slow:close()
  end)

  it("closes and resets when asked to", function()
    local client = http.connect(up.port)
    assert.same({ nil, "closed", "" }, { client:request({ path = "/close" }) })
    client = http.connect(up.port)
    local response, why = client:request({ path = "/reset" })
    assert.is_nil(response)
    assert.equal("reset", why)
  end)

  it("becomes a tunnel", function()
    local client = http.connect(up.port)
    local response = client:request({ path = "/tunnel", headers = { Connection = "Upgrade", Upgrade = "x" } })
    assert.equal(101, response.status)
    client:send("ping")
    assert.equal("ping", client.socket:receive_exact(4))
    client:close()
  end)

  it("does what a handler of the spec says", function()
    local own = upstream.start(function(request, connection)
      connection:begin(200, { ["X-Path"] = request.target })
      connection:chunk("one")
      connection:finish("X-Sum: 1")
    end)
    local response = http.get(own.port, "/p")
    assert.equal("/p", response.headers["x-path"])
    assert.equal("one", response.body)
    assert.equal("1", response.trailers["x-sum"])
    own:stop()
  end)
end)

describe("the sockets of the specs", function()
  it("say that a connection was refused", function()
    local socket, why = net.connect("127.0.0.1", process.free_port())
    assert.is_nil(socket)
    assert.equal("refused", why)
  end)

  it("give up at the deadline", function()
    local fd, port = assert(posix.listen("127.0.0.1", 0))
    local socket = assert(net.connect("127.0.0.1", port))
    local data, why = socket:receive_some(0.02)
    assert.is_nil(data)
    assert.equal("timeout", why)
    assert.is_false(socket:closes_within(0.02))
    socket:close()
    posix.C.sys_close_fd(fd)
  end)
end)

describe("TLS in the specs", function()
  local directory, ca, certificate, up

  setup(function()
    directory = posix.temporary_directory()
    ca = tls.make_certificate(directory, { name = "Spec CA" })
    certificate = tls.make_certificate(directory, { name = "a.test", ca = ca })
    up = upstream.start(nil, { tls = { certificate = certificate.certificate, key = certificate.key } })
  end)

  teardown(function()
    up:stop()
    process.remove(directory)
  end)

  it("verifies the name and the authority", function()
    local response = http.request(up.port, { tls = { name = "a.test", ca = ca.certificate } })
    local seen = cjson.decode(response.body)
    assert.equal("a.test", seen.tls.sni)
    assert.equal("TLSv1.3", seen.tls.version)
    local client, why = http.connect(up.port, { tls = { name = "b.test", ca = ca.certificate } })
    assert.is_nil(client)
    assert.matches("certificate verify failed", why)
  end)

  it("resumes a session", function()
    local options = { name = "a.test", max_version = "1.2" }
    options.context = tls.context(options)
    local first = assert(http.connect(up.port, { tls = options }))
    assert.equal(200, first:request({}).status)
    options.session = tls.session(first.socket)
    local second = assert(http.connect(up.port, { tls = options }))
    assert.is_false(tls.info(first.socket).resumed)
    assert.is_true(tls.info(second.socket).resumed)
    first:close()
    second:close()
    tls.free(options.context)
  end)
end)
