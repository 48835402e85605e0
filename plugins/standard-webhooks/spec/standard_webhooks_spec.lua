-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"

-- The example of the Standard Webhooks specification.
local SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
local ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'
local SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

describe("standard-webhooks", function()
  local gateway

  local function start(config, options)
    config = config or {}
    config.secret_v1 = config.secret_v1 or SECRET
    options = options or {}
    options.time, options.plugins = AT, { { name = "standard-webhooks", config = config } }
    gateway = spec.gateway(options)
  end

  -- A message; `changes` to its fields, false: without.
  local function send(changes, body)
    local headers = { ["webhook-id"] = ID, ["webhook-timestamp"] = tostring(AT), ["webhook-signature"] = SIGNATURE,
      ["Content-Type"] = "application/json" }
    for name, value in pairs(changes or {}) do headers["webhook-" .. name] = value or nil end
    return gateway:post("/", body or BODY, headers)
  end

  local function assert_refused(response)
    assert.same({ 400, "Bad request" }, { response.status, response.json.message })
  end

  it("lets a signed message pass, whole", function()
    start()
    assert.equal(200, send().status)
    assert.equal(BODY, gateway:requests()[1].body)
  end)

  it("refuses one with another body, id, time or secret", function()
    start()
    assert_refused(send(nil, BODY .. " "))
    assert_refused(send { id = "msg_other" })
    assert_refused(send { timestamp = tostring(AT + 1) })
    start { secret_v1 = "whsec_" .. crypto.base64_encode("another secret") }
    assert_refused(send())
    assert.equal(0, #gateway:requests())
  end)

  it("refuses one without id, time, signature or body, or with two of them", function()
    start()
    for _, name in ipairs { "id", "timestamp", "signature" } do
      assert_refused(send { [name] = false })
      assert_refused(send { [name] = "" })
      assert_refused(gateway:request { method = "POST", path = "/", body = BODY, headers = {
        { "webhook-id", ID }, { "webhook-timestamp", tostring(AT) }, { "webhook-signature", SIGNATURE },
        { "Webhook-" .. name, name == "id" and ID or name == "timestamp" and tostring(AT) or SIGNATURE } } })
    end
    assert_refused(send({ signature = "v1," .. crypto.base64_encode(crypto.hmac("sha256",
      crypto.base64_decode(SECRET:sub(7)), ID .. "." .. AT .. ".")) }, ""))
  end)

  it("takes any of several signatures, of version 1 alone", function()
    start()
    local code = SIGNATURE:sub(4)
    assert.equal(200, send({ signature = "v1,AAAA v1a,BBBB " .. SIGNATURE }).status)
    assert.equal(200, send({ signature = SIGNATURE .. " v1,AAAA" }).status)
    for _, text in ipairs { code, "v2," .. code, "v1a," .. code, "v1=" .. code, "v1," .. code .. "x", "v1,AAAA v1,BBBB",
      "v1," .. code:sub(1, -2), ("v1,AAAA "):rep(16) .. SIGNATURE } do
      assert_refused(send { signature = text })
    end
  end)

  describe("looks at the time", function()
    it("which may differ by tolerance_second, both ways", function()
      start { tolerance_second = 10 }
      gateway:advance(10)
      assert.equal(200, send().status)
      gateway:advance(1)
      assert_refused(send())
      start({ tolerance_second = 10 })
      local later = tostring(AT + 60)
      assert_refused(send { timestamp = later, signature = "v1," .. crypto.base64_encode(crypto.hmac("sha256",
        crypto.base64_decode(SECRET:sub(7)), ID .. "." .. later .. "." .. BODY)) })
    end)

    it("which may differ by five minutes unless told", function()
      start()
      gateway:advance(299)
      assert.equal(200, send().status)
      gateway:advance(2)
      assert_refused(send())
    end)

    it("not at all when tolerance_second is -1", function()
      start { tolerance_second = -1 }
      gateway:advance(1e6)
      assert.equal(200, send().status)
    end)

    it("which is a number of seconds", function()
      start { tolerance_second = -1 }
      for _, text in ipairs { "0", "-1", "1e9", "0x10", "1614265330.5", " 1", "nan", ("9"):rep(40), "01614265330" } do
        assert_refused(send { timestamp = text, signature = "v1," .. crypto.base64_encode(crypto.hmac("sha256",
          crypto.base64_decode(SECRET:sub(7)), ID .. "." .. text .. "." .. BODY)) })
      end
    end)
  end)

  it("takes secrets without a prefix, in base64 or not", function()
    start { secret_v1 = SECRET:sub(7) }
    assert.equal(200, send().status)
    start { secret_v1 = "no base64!" }
    assert.equal(200, send({ signature = "v1," .. crypto.base64_encode(crypto.hmac("sha256", "no base64!",
      ID .. "." .. AT .. "." .. BODY)) }).status)
  end)

  it("takes the secret from the environment", function()
    start({ secret_v1 = "{vault://env/hook-secret}" }, { env = { HOOK_SECRET = SECRET } })
    assert.equal(200, send().status)
  end)

  it("refuses a body that is too large to be held", function()
    start(nil, { gateway = { limits = { max_buffered_body_bytes = 1024 } } })
    local response = send(nil, ("x"):rep(2000))
    assert.same({ 413, "Request body is too large" }, { response.status, response.json.message })
  end)

  it("refuses a configuration without a secret, or with none of use", function()
    local function refusal(config)
      return select(2, spec.check { plugins = { { name = "standard-webhooks", config = config } } })
    end
    assert.matches("secret_v1: expected", refusal {})
    assert.matches("secret_v1: expected base64 behind whsec_", refusal { secret_v1 = "whsec_!" })
    assert.matches("tolerance_second: expected", refusal { secret_v1 = SECRET, tolerance_second = -2 })
  end)
end)
