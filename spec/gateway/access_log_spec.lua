-- SPDX-License-Identifier: Apache-2.0
-- The access log: a line a request, written by the core.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

describe("the access log", function()
  local up

  setup(function() up = upstream.start() end)
  teardown(function() up:stop() end)

  local function start(format, options)
    options = options or {}
    return gateway.start({
      _format_version = "3.0",
      gateway = { access_log = { path = "./access.log", format = format }, trusted_ips = { "127.0.0.1" } },
      services = {
        { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" }, strip_path = false } } },
        { name = "dead", url = "http://127.0.0.1:" .. process.free_port(), retries = 1,
          routes = { { name = "dead", paths = { "/dead" } } } },
      },
    }, options)
  end

  -- The lines that the file will have, once it has `count`.
  local function lines_of(gw, count, name)
    local lines
    process.wait_until(function()
      lines = {}
      for line in process.read_file(gw.directory .. "/" .. (name or "access.log")):gmatch("([^\n]*)\n") do
        lines[#lines + 1] = line
      end
      return #lines >= count
    end, 5, function() return count .. " lines in the access log, found:\n" .. table.concat(lines, "\n") end)
    assert.equal(count, #lines)
    return lines
  end

  it("has the combined format as text, and how long it took, where and as what behind it", function()
    local gw = start("text")
    gw:request({ path = "/echo?a=\"b\"", headers = { Referer = "http://a/", ["User-Agent"] = 'x"\\y\t\195\169',
      ["X-Forwarded-For"] = "1.2.3.4" } })
    local line = lines_of(gw, 1)[1]
    local address, time, request, status, bytes, referer, agent, rest =
      line:match('^(%S+) %- %- %[([^%]]+)%] "([^"]*)" (%d+) (%d+) "([^"]*)" "([^"]*)" (.*)$')
    assert.same({ "1.2.3.4", [[GET /echo?a=\x22b\x22 HTTP/1.1]], "200", "http://a/", [[x\x22\x5Cy\x09\xC3\xA9]] },
      { address, request, status, referer, agent })
    assert.matches("^%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d %+0000$", time)
    assert.is_true(tonumber(bytes) > 100)
    assert.matches("^%d+%.%d%d%d %d+%.%d%d%d 127%.0%.0%.1:" .. up.port .. " %x+$", rest)
    gw:stop()
  end)

  it("says what there is of requests that reached no service", function()
    local gw = start("text")
    assert.equal(502, gw:get("/dead").status)
    local client = gw:connect()
    client:send("no HTTP\r\n\r\n")
    assert.equal(501, client:read_response("GET").status)
    client:close()
    local lines = lines_of(gw, 2)
    assert.matches('"GET /dead HTTP/1.1" 502 %d+ "%-" "%-" %S+ %- 127%.0%.0%.1:%d+ %x+$', lines[1])
    assert.matches('"%-" 501 %d+ "%-" "%-" %S+ %- %- %x+$', lines[2])
    gw:stop()
  end)

  it("has an object a line as JSON", function()
    local gw = start("json")
    gw:request({ path = "/echo?x", method = "POST", body = "hello", host = "Shop.test",
      headers = { ["User-Agent"] = 'a"b\n' and 'a"b', ["X-Forwarded-For"] = "1.2.3.4" } })
    gw:request({ path = "/dead", method = "POST", body = "", headers = { ["Content-Type"] = "application/grpc" } })
    local first, second = unpack(lines_of(gw, 2))
    first, second = cjson.decode(first), cjson.decode(second)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", first.time)
    assert.is_true(first.ms >= first.service_ms)
    assert.matches("^%x+$", first.id)
    assert.is_true(first.bytes > 100 and first.request_bytes > 5)
    for _, name in ipairs { "time", "ms", "service_ms", "id", "bytes", "request_bytes" } do first[name] = nil end
    assert.same({ client_ip = "1.2.3.4", method = "POST", scheme = "http", host = "shop.test", target = "/echo?x",
      version = "1.1", status = 200, user_agent = 'a"b', route = "up", service = "up", target_ip = "127.0.0.1",
      target_port = up.port, tries = 1, service_status = 200 }, first)
    assert.same({ 502, "14", 2 }, { second.status, second.grpc_status, second.tries })
    assert.matches("^No connection to the service", second.error)
    gw:stop()
  end)

  -- Each byte that a field may hold, at all places of a word of eight.
  local function all_bytes()
    local pieces = {}
    for byte = 0x20, 0xff do
      if byte ~= 0x7f then pieces[#pieces + 1] = ("a"):rep(byte % 13) .. string.char(byte) end
    end
    return table.concat(pieces, nil, 2) .. "z"
  end

  it("escapes in text what may not stand in a line, and nothing else", function()
    local gw = start("text")
    gw:request { path = "/echo", headers = { ["User-Agent"] = all_bytes(), Referer = "1234567\t1234567" } }
    local referer, agent = lines_of(gw, 1)[1]:match('"([^"]*)" "([^"]*)" %d+%.')
    assert.equal("1234567\\x091234567", referer)
    assert.equal((all_bytes():gsub('["\\\128-\255]', function(byte) return ("\\x%02X"):format(byte:byte()) end)), agent)
    gw:stop()
  end)

  it("escapes in JSON what may not stand in a string, and nothing else", function()
    local gw = start("json")
    gw:request { path = "/echo", headers = { ["User-Agent"] = all_bytes(), Referer = "1234567\t1234567" } }
    local referer, agent = lines_of(gw, 1)[1]:match('"referer":"([^"]*)","user_agent":"(.*)","route"')
    assert.equal("1234567\\u00091234567", referer)
    assert.equal((all_bytes():gsub('["\\]', "\\%0"):gsub("[\128-\255]", function(byte)
      return ("\\u%04x"):format(byte:byte())
    end)), agent)
    gw:stop()
  end)

  it("names the consumer in JSON, and nobody whom a client only says to be", function()
    local gw = gateway.start {
      _format_version = "3.0", gateway = { access_log = { path = "access.log", format = "json" } },
      consumers = { { username = "alice", keyauth_credentials = { { key = "secret" } } } },
      services = { { name = "up", url = up:url(), routes = {
        { name = "guarded", paths = { "/guarded" }, plugins = { { name = "key-auth" } } },
        { name = "open", paths = { "/open" } } } } },
    }
    gw:request { path = "/guarded", headers = { apikey = "secret", ["X-Consumer-Username"] = "eve" } }
    gw:request { path = "/open", headers = { ["X-Consumer-Username"] = "eve" } }
    local first, second = unpack(lines_of(gw, 2))
    first, second = cjson.decode(first), cjson.decode(second)
    assert.same({ "guarded", "alice" }, { first.route, first.consumer })
    assert.equal("open", second.route)
    assert.is_nil(second.consumer)
    gw:stop()
  end)

  it("tells that a client left, and nothing of the status listener", function()
    local gw = start("json")
    up:forget()
    local client = gw:connect()
    client:send("GET /delay/60 HTTP/1.1\r\nHost: x\r\n\r\n")
    process.wait_until(function() return up:stats().requests == 1 end, 5, "the request at the service")
    client:close()
    local line = cjson.decode(lines_of(gw, 1)[1])
    assert.same({ 499, true }, { line.status, line.cut })
    gw:stop()
  end)

  it("has streams of TCP, which have no request", function()
    local port = process.free_port()
    local gw = gateway.start({
      _format_version = "3.0", gateway = { access_log = { path = "access.log", format = "json" } },
      services = { { name = "raw", url = "tcp://127.0.0.1:" .. up.port, routes = { { name = "raw",
        protocols = { "tcp" }, destinations = { { port = port } } } } } },
    }, { env = { SLUICE_STREAM_LISTEN = "127.0.0.1:" .. port } })
    assert.equal(200, http.get(port, "/echo").status)
    local line = cjson.decode(lines_of(gw, 1)[1])
    assert.same({ "tcp", "raw", up.port }, { line.scheme, line.service, line.target_port })
    assert.is_nil(line.method)
    gw:stop()
  end)

  it("writes milliseconds with three digits behind the point", function()
    local gw = start("text")
    gw:request { path = "/delay/1.05" }
    local whole, service = lines_of(gw, 1)[1]:match('" (%S+) (%S+) 127')
    assert.matches("^%d%d%d%d+%.%d%d%d$", whole)
    assert.matches("^%d%d%d%d+%.%d%d%d$", service)
    gw:stop()
  end)

  it("goes on in a new file when the old one was moved away", function()
    local gw = start("text")
    gw:get("/echo")
    lines_of(gw, 1)
    assert(os.rename(gw.directory .. "/access.log", gw.directory .. "/old.log"))
    gw.process:signal(10) -- SIGUSR1, as for the gateway's own log
    gw:get("/echo")
    lines_of(gw, 1)
    lines_of(gw, 1, "old.log")
    gw:stop()
  end)

  it("is whole when the gateway has ended, of all workers", function()
    local gw = start("text", { workers = 2 })
    for _ = 1, 20 do gw:get("/echo") end
    local directory = gw.directory
    gw.process:stop(10)
    local count = 0
    for line in process.read_file(directory .. "/access.log"):gmatch("[^\n]+") do
      count = count + 1
      assert.matches('"GET /echo HTTP/1.1" 200', line)
    end
    assert.equal(20, count)
    gw:stop()
  end)

  it("is off unless told", function()
    local gw = gateway.start({ _format_version = "3.0" })
    gw:get("/")
    local found = io.popen("ls " .. gw.directory):read("*a")
    assert.is_nil(found:find("access", 1, true))
    gw:stop()
  end)
end)
