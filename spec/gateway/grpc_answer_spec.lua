-- SPDX-License-Identifier: Apache-2.0
-- What a client that speaks gRPC hears when it is the gateway that answers.
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local GRPC = { ["Content-Type"] = "application/grpc", TE = "trailers" }

-- Answers in the phases and ways that plugins have, and tells in phase log what it saw.
local ANSWERS = [[
local log = require("sluice").log
local answers = { version = "1", priority = 10 }

function answers.access(conf, exchange)
  local how = exchange.request:get_path():match("[^/]+$")
  local response = exchange.response
  if how == "table" then response:exit(401, { message = "who are you?" }, { ["WWW-Authenticate"] = "Key" }) end
  if how == "text" then response:exit(403, "100% no") end
  if how == "html" then response:exit(404, "<p>no</p>", { ["Content-Type"] = "text/html" }) end
  if how == "error" then response:error(429, "slow down") end
  if how == "error-html" then response:error(429, "slow down", { ["Content-Type"] = "text/html" }) end
  if how == "own" then response:exit(500, "x", { ["grpc-status"] = "9", ["grpc-message"] = "mine" }) end
  if how == "good" then response:exit(200, "\0\0\0\0\0", { ["Content-Type"] = "application/grpc" }) end
  if how == "raises" then error("oh") end
end

function answers.header_filter(conf, exchange)
  if exchange.request:get_path():find("/filtered$") then exchange.response:exit(503, { message = "filtered" }) end
  exchange.response:set_header("X-Seen", exchange.response:get_status())
end

function answers.log(conf, exchange)
  log.notice("answered", { status = exchange.response:get_status(),
    grpc = exchange.response:get_header("grpc-status") or "none" })
end

return answers
]]

describe("an answer of the gateway to gRPC", function()
  local gw, up

  setup(function()
    up = upstream.start()
    gw = gateway.start({
      _format_version = "3.0",
      services = {
        { name = "up", url = up:url(), routes = { { name = "up", paths = { "/up" }, strip_path = false,
          plugins = { { name = "answers" } } }, { name = "status", paths = { "/status" }, strip_path = false } } },
        { name = "dead", url = "http://127.0.0.1:" .. process.free_port(), retries = 0,
          routes = { { name = "dead", paths = { "/dead" } } } },
        { name = "slow", url = up:url(), read_timeout = 50, retries = 0,
          routes = { { name = "slow", paths = { "/delay" }, strip_path = false } } },
      },
    }, { plugins = { answers = ANSWERS } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  local function call(path, headers)
    local client = gw:connect()
    local response = assert(client:request({ path = path, headers = headers or GRPC, body = "\0\0\0\0\0" }))
    -- The connection is as good as before.
    assert.equal(200, assert(client:request({ path = "/up/echo" })).status)
    client:close()
    return response
  end

  local function told(response)
    assert.equal(200, response.status)
    assert.equal("application/grpc", response.headers["content-type"])
    assert.equal("", response.body)
    return { tonumber(response.headers["grpc-status"]), response.headers["grpc-message"] }
  end

  it("says UNIMPLEMENTED where there is no route", function()
    assert.same({ 12, "no Route matched with those values" }, told(call("/nowhere")))
  end)

  it("says UNAVAILABLE where the service cannot be reached", function()
    assert.same({ 14, "An invalid response was received from the upstream server" }, told(call("/dead")))
  end)

  it("says DEADLINE_EXCEEDED where the service is too slow", function()
    assert.same({ 4, "The upstream server is timing out" }, told(call("/delay/5")))
  end)

  it("says INTERNAL where a plugin raises", function()
    assert.same({ 13, "An unexpected error occurred" }, told(call("/up/raises")))
  end)

  it("tells what a plugin answered, by its meaning", function()
    local response = call("/up/table")
    assert.same({ 16, "who are you?" }, told(response))
    assert.equal("Key", response.headers["www-authenticate"])
    assert.same({ 7, "100%25 no" }, told(call("/up/text")))
    assert.same({ 5, "Not Found" }, told(call("/up/html")))
    assert.same({ 8, "slow down" }, told(call("/up/error")))
    assert.same({ 8, "slow down" }, told(call("/up/error-html")))
    assert.same({ 14, "filtered" }, told(call("/up/filtered")))
  end)

  it("leaves a status that a plugin chose itself", function()
    assert.same({ 9, "mine" }, told(call("/up/own")))
  end)

  it("leaves an answer that is no error", function()
    local response = call("/up/good")
    assert.same({ 200, "\0\0\0\0\0" }, { response.status, response.body })
    assert.is_nil(response.headers["grpc-status"])
  end)

  it("shows plugins the status that HTTP would have, and what was sent", function()
    local response = call("/up/error")
    assert.equal("429", response.headers["x-seen"])
    gw:wait_log("answered.*grpc=8.*status=429")
  end)

  it("is an error of HTTP for everybody else", function()
    for _, type in ipairs { "application/json", "application/grpc-web+proto" } do
      local response = call("/up/table", { ["Content-Type"] = type })
      assert.equal(401, response.status)
      assert.is_nil(response.headers["grpc-status"])
    end
  end)

  it("is the service's own when the service answers", function()
    local response = call("/status/418")
    assert.equal(418, response.status)
    assert.is_nil(response.headers["grpc-status"])
  end)
end)
