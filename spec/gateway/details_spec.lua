-- SPDX-License-Identifier: Apache-2.0
-- Details of HTTP that users meet: early hints, ranges, codings, alternative services, CONNECT, bodies held by plugins.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local HINTS = [[
return { version = "1", priority = 10, access = function(conf, exchange)
  local links = { "</a.css>; rel=preload", "</b.js>; rel=preload" }
  local sent = exchange.response:early_hints { Link = links, ["X-Own"] = 1 }
  local again = exchange.response:early_hints { Link = "</c.png>" }
  exchange.service.request:set_header("X-Hinted", tostring(sent) .. tostring(again))
  if exchange.request:get_path() == "/hints/wrong" then exchange.response:early_hints { ["X-Y"] = "a\r\nb" } end
end }
]]

-- Tells how long the body is that it held, and what it begins with.
local HOLDS = [[
return { version = "1", priority = 10, body_filter = function(conf, exchange)
  local body = exchange.response:get_raw_body()
  if body then exchange.response:set_raw_body(#body .. " " .. body:sub(1, 2):gsub(".", function(c)
    return ("%02x"):format(c:byte()) end)) end
end }
]]

describe("the gateway", function()
  local gw, up

  setup(function()
    up = upstream.start(function(request, connection)
      local path, fields = request.target, {}
      for name, value in pairs(request.headers) do
        if type(name) == "string" then fields[name:lower()] = value end
      end
      if path:find("hop", 1, true) then
        connection:send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Private\r\nX-Private: 1\r\n\r\n")
        connection:send("HTTP/1.1 102 Processing\r\n\r\n")
        return connection:respond(200, nil, "final")
      elseif path:find("multipart", 1, true) then
        return connection:respond(206, { ["Content-Type"] = "multipart/byteranges; boundary=THIS" },
          "--THIS\r\nContent-Range: bytes 0-0/10\r\n\r\na\r\n--THIS\r\nContent-Range: bytes 5-5/10\r\n\r\nf\r\n"
            .. "--THIS--")
      elseif path:find("range", 1, true) and fields.range == "bytes=99-" then
        return connection:respond(416, { ["Content-Range"] = "bytes */10" }, "")
      elseif path:find("range", 1, true) then
        return connection:respond(206, { ["Content-Range"] = "bytes 2-4/10", ["Accept-Ranges"] = "bytes",
          ETag = '"v1"', ["X-Asked"] = (fields.range or "") .. " if " .. (fields["if-range"] or "") }, "cde")
      elseif path:find("gzip", 1, true) then
        return connection:respond(200, { ["Content-Encoding"] = "gzip", Vary = "Accept-Encoding",
          ["X-Asked"] = fields["accept-encoding"] }, "\31\139gzipped\0bytes")
      elseif path:find("alt", 1, true) then
        return connection:respond(200, { { "Alt-Svc", 'h3=":443"; ma=86400' }, { "Alt-Svc", "clear" } }, "alt")
      elseif path:find("endless", 1, true) then
        connection:begin(200)
        while connection:chunk(("x"):rep(50000)) do end
        return connection:close()
      elseif path:find("large", 1, true) then
        return connection:respond(200, nil, ("x"):rep(100000))
      end
      connection:echo()
    end)
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { max_buffered_body_bytes = 100000 } },
      services = { { name = "up", url = up:url(), routes = {
        { name = "up", paths = { "/" }, strip_path = false },
        { name = "hints", paths = { "/hints" }, strip_path = false, plugins = { { name = "hints" } } },
        { name = "held", paths = { "/held" }, strip_path = false, plugins = { { name = "holds" } } },
      } } },
    }, { plugins = { hints = HINTS, holds = HOLDS } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  describe("passes", function()
    it("early hints, but for fields of the connection", function()
      local client = gw:connect()
      local response = client:request({ path = "/hop" })
      client:close()
      local hints = response.informational
      assert.same({ 103, "</a.css>", 102, 200, "final" },
        { hints[1].status, hints[1].headers.link, hints[2].status, response.status, response.body })
      assert.is_nil(hints[1].headers.connection or hints[1].headers["x-private"])
    end)

    it("a part of a body, and what was asked for", function()
      local response = gw:get("/range", { Range = "bytes=2-4", ["If-Range"] = '"v1"' })
      assert.same({ 206, "cde", "3", "bytes 2-4/10", "bytes", '"v1"', 'bytes=2-4 if "v1"' },
        { response.status, response.body, response.headers["content-length"], response.headers["content-range"],
          response.headers["accept-ranges"], response.headers.etag, response.headers["x-asked"] })
    end)

    it("several parts of a body", function()
      local response = gw:get("/multipart", { Range = "bytes=0-0,5-5" })
      assert.same({ 206, "multipart/byteranges; boundary=THIS" }, { response.status, response.headers["content-type"] })
      assert.matches("^%-%-THIS\r\n.*\r\n%-%-THIS%-%-$", response.body)
    end)

    it("that there is no such part", function()
      local response = gw:get("/range", { Range = "bytes=99-" })
      assert.same({ 416, "bytes */10", "" }, { response.status, response.headers["content-range"], response.body })
    end)

    it("a compressed body as it is", function()
      local response = gw:get("/gzip", { ["Accept-Encoding"] = "gzip, br;q=0.5" })
      assert.same({ "\31\139gzipped\0bytes", "gzip", "15", "Accept-Encoding", "gzip, br;q=0.5" },
        { response.body, response.headers["content-encoding"], response.headers["content-length"],
          response.headers.vary, response.headers["x-asked"] })
    end)

    it("alternative services", function()
      assert.same({ 'h3=":443"; ma=86400', "clear" }, http.values(gw:get("/alt").headers, "Alt-Svc"))
    end)
  end)

  describe("lets plugins", function()
    it("send early hints", function()
      local client = gw:connect()
      local response = client:request({ path = "/hints" })
      client:close()
      local first, second = unpack(response.informational)
      assert.same({ 103, 103, 200 }, { first.status, second.status, response.status })
      assert.same({ "</a.css>; rel=preload", "</b.js>; rel=preload" }, http.values(first.headers, "Link"))
      assert.same({ "1", "</c.png>" }, { first.headers["x-own"], second.headers.link })
      assert.is_nil(second.headers["x-own"])
      assert.equal("truetrue", cjson.decode(response.body).headers["x-hinted"])
    end)

    it("know that a client of HTTP/1.0 gets none", function()
      local response = gw:request({ path = "/hints", version = "1.0" })
      assert.equal("falsefalse", cjson.decode(response.body).headers["x-hinted"])
    end)

    it("not break out of early hints", function()
      assert.equal(500, gw:get("/hints/wrong").status)
    end)

    it("see a compressed body as it is", function()
      assert.equal("15 1f8b", gw:get("/held/gzip").body)
    end)

    it("hold a body up to a limit", function()
      assert.equal("100000 7878", gw:get("/held/large").body)
    end)

    it("not hold more", function()
      local client = gw:connect()
      client:send("GET /held/endless HTTP/1.1\r\nHost: x\r\n\r\n")
      local response, why = client:read_response("GET")
      assert.same({ nil, "closed" }, { response, why })
      client:close()
      gw:wait_log("plugin failed.*larger than gateway.limits.max_buffered_body_bytes %(100000%)")
      process.wait_until(function() return up:stats().open <= 1 end, 5, "the service is left alone")
    end)
  end)

  describe("refuses", function()
    it("CONNECT, and says what it allows", function()
      local client = gw:connect()
      client:send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
      local response = client:read_response("CONNECT")
      assert.same({ 405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE", "close" },
        { response.status, response.headers.allow, response.headers.connection })
      assert.is_true(client:closes_within(2))
      client:close()
    end)
  end)
end)
