-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local CHUNKED = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

describe("request-size-limiting", function()
  local gateway

  local function start(config, options)
    options = options or {}
    options.plugins = { { name = "request-size-limiting", config = config } }
    for _, plugin in ipairs(options.more or {}) do table.insert(options.plugins, plugin) end
    options.more = nil
    gateway = spec.gateway(options)
  end

  local function post(bytes, headers)
    return gateway:post("/", ("x"):rep(bytes), headers)
  end

  local function chunked(...)
    return gateway:request { method = "POST", path = "/", chunks = { ... } }
  end

  local function assert_refused(status, message, response)
    assert.same({ status, message }, { response.status, response.json.message })
  end

  local TOO_LARGE = "Request size limit exceeded"

  it("lets bodies pass up to the limit, and none beyond", function()
    start { allowed_payload_size = 10, size_unit = "bytes" }
    assert.equal(200, post(10).status)
    assert.equal(("x"):rep(10), gateway:requests()[1].body)
    assert_refused(413, TOO_LARGE, post(11))
    assert.equal(200, gateway:get("/").status)
    assert.equal(2, #gateway:requests())
  end)

  it("counts in kilobytes, and in megabytes unless told", function()
    start { allowed_payload_size = 1, size_unit = "kilobytes" }
    assert.equal(200, post(1024).status)
    assert_refused(413, TOO_LARGE, post(1025))
    start { allowed_payload_size = 1 }
    assert.equal(200, post(1024 * 1024).status)
    assert_refused(413, TOO_LARGE, post(1024 * 1024 + 1))
  end)

  it("has a limit of 128 megabytes unless told", function()
    start()
    assert_refused(413, TOO_LARGE, gateway:request { method = "POST", path = "/",
      headers = { ["Content-Length"] = 128 * 1024 * 1024 + 1 } })
  end)

  it("answers 417 to who waits for leave to send too much", function()
    start { allowed_payload_size = 10, size_unit = "bytes" }
    local connection = gateway:connect()
    connection:send_bytes("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    local response = connection:receive()
    assert_refused(417, TOO_LARGE, response)
    assert.equal("close", response.headers.connection) -- what came next could be the body, or another request
    assert.equal(0, #gateway:requests())
  end)

  it("refuses requests without Content-Length with require_content_length", function()
    start { require_content_length = true }
    assert_refused(411, "A valid Content-Length header is required", chunked("x"))
    assert_refused(411, "A valid Content-Length header is required", gateway:get("/"))
    assert.equal(200, post(3).status)
  end)

  describe("without Content-Length", function()
    it("lets bodies pass up to the limit", function()
      start { allowed_payload_size = 10, size_unit = "bytes" }
      assert.equal(200, chunked("12345", "67890").status)
      assert.equal("1234567890", gateway:requests()[1].body)
    end)

    it("refuses what is larger, whether it comes at once or not", function()
      start { allowed_payload_size = 10, size_unit = "bytes" }
      assert_refused(413, TOO_LARGE, chunked("12345", "678901"))
      local connection = gateway:connect()
      connection:send_bytes(CHUNKED .. "5\r\n12345\r\n")
      gateway:advance(0.1)
      assert.is_nil(connection:partial())
      connection:send_bytes("6\r\n678901\r\n")
      assert_refused(413, TOO_LARGE, connection:receive())
    end)

    it("does not wait for the body: the service gets it as it comes", function()
      start({ allowed_payload_size = 10, size_unit = "bytes" }, { routes = { { name = "r", paths = { "/" },
        service = "s", request_buffering = false } }, services = { { name = "s", url = "http://service.example" } } })
      local connection = gateway:connect()
      connection:send_bytes(CHUNKED .. "5\r\n12345\r\n")
      gateway:advance(0.1)
      connection:send_bytes("5\r\n67890\r\n0\r\n\r\n")
      assert.equal(200, connection:receive().status)
      assert.equal("1234567890", gateway:requests()[1].body)
    end)

    it("refuses what a later plugin would hold", function()
      start({ allowed_payload_size = 10, size_unit = "bytes" }, { more = { { name = "reader" } }, plugins_code = {
        reader = [[return { version = "1.0.0", priority = 1, access = function(_, exchange)
          local body, err = exchange.request:get_raw_body()
          exchange.response:exit(200, { body = body, err = err })
        end }]] } })
      assert.equal("1234567890", chunked("12345", "67890").json.body)
      local connection = gateway:connect()
      connection:send_bytes(CHUNKED .. "5\r\n12345\r\n")
      gateway:advance(0.1)
      connection:send_bytes("6\r\n678901\r\n")
      assert.is_nil(connection:receive().json.body)
    end)

    it("takes nothing where nothing is allowed", function()
      start { allowed_payload_size = 0, size_unit = "bytes" }
      assert.equal(200, gateway:get("/").status)
      assert_refused(413, TOO_LARGE, chunked("1"))
    end)
  end)

  it("limits each consumer by itself", function()
    gateway = spec.gateway { consumers = {
      { username = "large", keyauth_credentials = { { key = "l" } }, plugins = { { name = "request-size-limiting",
        config = { allowed_payload_size = 20, size_unit = "bytes" } } } },
      { username = "other", keyauth_credentials = { { key = "o" } } } },
      plugins = { { name = "key-auth" },
        { name = "request-size-limiting", config = { allowed_payload_size = 10, size_unit = "bytes" } } } }
    assert.equal(200, post(20, { apikey = "l" }).status)
    assert_refused(413, TOO_LARGE, post(11, { apikey = "o" }))
  end)

  it("leaves a lower limit of the gateway's own as it is", function()
    start({ allowed_payload_size = 10, size_unit = "bytes" }, { gateway = { limits = { max_body_bytes = 5 } } })
    assert_refused(413, "Request body is too large", chunked("123456"))
    assert_refused(413, "Request body is too large", post(6))
    start({ allowed_payload_size = 5, size_unit = "bytes" }, { gateway = { limits = { max_body_bytes = 10 } } })
    assert_refused(413, TOO_LARGE, chunked("123456"))
  end)

  it("refuses a configuration with what is no size, unit or switch", function()
    local function refusal(config)
      return select(2, spec.check { plugins = { { name = "request-size-limiting", config = config } } })
    end
    assert.matches("allowed_payload_size: expected an integer", refusal { allowed_payload_size = 1.5 })
    assert.matches("size_unit: expected one of", refusal { size_unit = "gigabytes" })
    assert.matches("require_content_length: expected", refusal { require_content_length = "yes" })
  end)
end)
