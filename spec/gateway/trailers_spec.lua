-- SPDX-License-Identifier: Apache-2.0
-- Trailers, fields behind the content (RFC 9110 6.5), through the gateway and its plugins, over HTTP/1.1.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local upstream = require "spec.support.upstream"

-- Does with trailers what the last part of the path says, in the phase that the part before it names.
local TRAILS = [[
local sluice = require "sluice"
local trails = { version = "1", priority = 10 }

local does = {}

function does.set(response) response:set_trailer("X-Sum", "mine") end
function does.add(response) response:add_trailer("X-Sum", "mine") end
function does.clear(response) response:clear_trailer("X-Sum") end
function does.new(response) response:set_trailer("X-New", 7) end
function does.several(response) response:set_trailer("X-New", { "1", "2" }) end
function does.forbidden(response) response:set_trailer("Content-Encoding", "gzip") end
function does.look(response, service, path)
  sluice.log.notice("looked", { path = path, sum = response:get_trailer("x-sum") or "none",
    service = service.response:get_trailer("x_sum") or "none", all = response:get_trailers()["x-sum"] or "none" })
end

local function act(exchange, phase)
  local where, what = exchange.request:get_path():match("/(%w+)/(%w+)$")
  if where == phase then does[what](exchange.response, exchange.service, exchange.request:get_path()) end
end

function trails.access(conf, exchange)
  local path = exchange.request:get_path()
  if path == "/request" then
    local before = exchange.request:get_trailer("x-sum")
    exchange.request:get_raw_body()
    exchange.response:exit(200, { before = before or "none", after = exchange.request:get_trailer("X-Sum"),
      all = exchange.request:get_trailers() })
  end
  act(exchange, "access")
  if path:find("^/exit") then exchange.response:exit(200, "done") end
  if path:find("^/stream") then
    local stream = exchange.response:stream(200)
    stream:send("streamed")
    exchange.response:set_trailer("X-Sum", "at the end")
  end
end

if not HOLDS then
  function trails.header_filter(conf, exchange) act(exchange, "header") end
  function trails.body_filter(conf, exchange, chunk, last) if last then act(exchange, "body") end return chunk end
else
  function trails.response(conf, exchange) act(exchange, "response") end
end

function trails.log(conf, exchange)
  act(exchange, "log")
  sluice.log.notice("ended", { request = exchange.request:get_trailer("x-sum") or "none" })
end

return trails
]]

describe("trailers", function()
  local gw, up

  setup(function()
    up = upstream.start(function(request, connection)
      local path = request.target
      if path:find("plain", 1, true) then return connection:respond(200, nil, "plain") end
      if path:find("forbids", 1, true) then
        connection:begin(200)
        connection:chunk("body")
        return connection:finish("X-Sum: 7\r\nHost: h\r\nSet-Cookie: a=b\r\nAuthorization: x\r\nTE: y")
      end
      if path:find("service", 1, true) then
        connection:begin(200, { Trailer = "X-Sum, X-Other" })
        connection:chunk("body")
        return connection:finish("X-Sum: 7\r\nX-Other: 8")
      end
      connection:echo()
    end)
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "up", url = up:url(), routes = {
        { name = "pass", paths = { "/pass" }, strip_path = false },
        { name = "filter", paths = { "/" }, strip_path = false, plugins = { { name = "trails" } } },
        { name = "hold", paths = { "/hold" }, strip_path = false, plugins = { { name = "holds" } } },
      } } },
    }, { plugins = { trails = "local HOLDS = false\n" .. TRAILS, holds = "local HOLDS = true\n" .. TRAILS } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  -- `te`: the client says that it takes trailers.
  local function get(path, te, more)
    local request = { path = path, headers = { TE = te and "deflate;q=0.5, trailers" or nil } }
    for key, value in pairs(more or {}) do request[key] = value end
    local client = gw:connect()
    local response = assert(client:request(request))
    if request.version ~= "1.0" then assert.equal(200, client:request({ path = "/pass/plain" }).status) end
    client:close()
    return response, response.trailers
  end

  local SENT = "3\r\nabc\r\n0\r\nX-Sum: 5\r\n\r\n"

  it("of a request are there once its body has come", function()
    local response = gw:request({ path = "/request", method = "POST", body = SENT,
      headers = { ["Transfer-Encoding"] = "chunked" } })
    assert.same({ before = "none", after = "5", all = { ["x-sum"] = "5" } }, cjson.decode(response.body))
  end)

  it("of a request go on to the service, and are there in phase log", function()
    local response = gw:request({ path = "/echo", method = "POST", body = SENT,
      headers = { ["Transfer-Encoding"] = "chunked" } })
    assert.equal(200, response.status)
    gw:wait_log("ended.*request=5")
  end)

  it("of the service pass as they are", function()
    local response, trailers = get("/pass/service")
    assert.same({ "body", "7", "8" }, { response.body, trailers["x-sum"], trailers["x-other"] })
  end)

  it("of the service pass but for fields that may not stand there", function()
    local _, trailers = get("/pass/forbids")
    assert.same({ { "X-Sum", "7" } }, { trailers[1], trailers[2] })
  end)

  for _, case in ipairs { "/service/body/look", "/hold/service/response/look", "/service/log/look" } do
    it("of the service are seen: " .. case, function()
      get(case)
      gw:wait_log("looked.*all=7.*path=" .. case .. ".*service=7.*sum=7")
    end)
  end

  for _, case in ipairs { "/service/access/set", "/service/header/set", "/service/body/set",
    "/hold/service/response/set" } do
    it("of the service are replaced: " .. case, function()
      local response, trailers = get(case)
      assert.same({ "body", "mine", "8" }, { response.body, trailers["x-sum"], trailers["x-other"] })
    end)
  end

  for _, case in ipairs { "/service/body/clear", "/hold/service/response/clear" } do
    it("of the service are cleared: " .. case, function()
      local response, trailers = get(case)
      assert.same({ "body", "8" }, { response.body, trailers["x-other"] })
      assert.is_nil(trailers["x-sum"])
    end)
  end

  it("are added to those of the service", function()
    local _, trailers = get("/service/body/add", true)
    assert.same({ { "X-Sum", "7" }, { "X-Other", "8" }, { "X-Sum", "mine" } }, { unpack(trailers) })
  end)

  for _, case in ipairs { "/service/header/new", "/service/body/new", "/plain/access/new", "/plain/header/new",
    "/plain/body/new", "/hold/plain/response/new", "/exit/access/new" } do
    it("of plugins go to who takes them: " .. case, function()
      local response, trailers = get(case, true)
      assert.equal("chunked", response.headers["transfer-encoding"])
      assert.is_nil(response.headers["content-length"])
      assert.equal("7", trailers["x-new"])
    end)

    it("of plugins do not go to others: " .. case, function()
      local response, trailers = get(case)
      assert.is_nil(trailers and trailers["x-new"])
      assert.is_truthy(response.body:find("^%a+$"))
    end)
  end

  it("are announced when they are known beforehand", function()
    local response, trailers = get("/plain/header/several", true)
    assert.equal("X-New", response.headers.trailer)
    assert.same({ { "X-New", "1" }, { "X-New", "2" } }, { unpack(trailers) })
    assert.is_nil(get("/plain/header/several").headers.trailer)
  end)

  it("end an answer that a plugin streams", function()
    local response, trailers = get("/stream", true)
    assert.same({ "streamed", "at the end" }, { response.body, trailers["x-sum"] })
  end)

  it("are not for HTTP/1.0, nor for HEAD", function()
    local response = get("/plain/header/new", true, { version = "1.0" })
    assert.same({ "plain" }, { response.body, response.trailers })
    response = get("/plain/header/new", true, { method = "HEAD" })
    assert.equal("5", response.headers["content-length"])
    assert.is_nil(response.headers.trailer)
  end)

  it("may not have any name", function()
    assert.equal(500, get("/plain/header/forbidden", true).status)
    gw:wait_log("plugin failed.*may not be a trailer")
  end)
end)
