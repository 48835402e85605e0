-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"

local NOW = "Thu, 01 Jan 2026 00:00:00 GMT" -- what the clock of a spec shows
local CANNOT, WRONG = "HMAC signature cannot be verified", "HMAC signature does not match"
local LATE = CANNOT .. ", a valid date or x-date header is required for HMAC Authentication"

local function hmac(parameters)
  local parts = {}
  for _, name in ipairs { "username", "algorithm", "headers", "signature" } do
    if parameters[name] then parts[#parts + 1] = ('%s="%s"'):format(name, parameters[name]) end
  end
  return "hmac " .. table.concat(parts, ", ")
end

-- The field of a signature over these lines.
local function signed(headers, lines, changes)
  local parameters = { username = "alice", algorithm = "hmac-sha256", headers = headers }
  for name, value in pairs(changes or {}) do parameters[name] = value end
  local kind = parameters.algorithm:match("sha%d+") or "sha1"
  parameters.signature = parameters.signature
    or crypto.base64_encode(crypto.hmac(kind, parameters.secret or "secret", table.concat(lines, "\n")))
  return hmac(parameters)
end

describe("hmac-auth", function()
  local gateway

  local function start(config)
    gateway = spec.gateway {
      consumers = {
        { username = "alice", custom_id = "a-1", hmacauth_credentials = { { username = "alice", secret = "secret" } } },
        { username = "nobody" },
      },
      plugins = { { name = "hmac-auth", config = config } },
    }
  end

  local function seen()
    local requests = gateway:requests()
    return requests[#requests]
  end

  local function send(authorization, fields, request)
    request = request or {}
    request.path = request.path or "/"
    request.headers = { Date = NOW, Authorization = authorization }
    for name, value in pairs(fields or {}) do request.headers[name] = value or nil end
    return gateway:request(request)
  end

  local function assert_refused(message, response)
    assert.equal(message, response.json.message)
    assert.equal(401, response.status)
    assert.equal("hmac", response.headers["www-authenticate"])
    assert.equal(0, #gateway:requests())
  end

  it("lets a good signature pass, and tells the service whose it is", function()
    start()
    assert.equal(200, send(signed("date", { "date: " .. NOW })).status)
    local headers = seen().headers
    assert.equal("alice", headers["x-consumer-username"])
    assert.equal("a-1", headers["x-consumer-custom-id"])
    assert.equal("alice", headers["x-credential-identifier"])
    assert.is_nil(headers["x-anonymous-consumer"])
  end)

  it("takes each algorithm that it is told, sha224 when it is asked to", function()
    start()
    for _, name in ipairs { "hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512" } do
      assert.message(name).equal(200, send(signed("date", { "date: " .. NOW }, { algorithm = name })).status)
    end
    assert.equal(401, send(signed("date", { "date: " .. NOW }, { algorithm = "hmac-sha224" })).status)
    start { algorithms = { "hmac-sha224" } }
    assert.equal(200, send(signed("date", { "date: " .. NOW }, { algorithm = "hmac-sha224" })).status)
    for _, name in ipairs { "hmac-sha256", "hmac-md5", "sha224", "hmac-" } do
      local response = send(signed("date", { "date: " .. NOW }, { algorithm = name }))
      assert.equal(CANNOT, response.json.message)
    end
  end)

  describe("signs", function()
    it("the request target, with its query and as it was sent", function()
      start()
      local target = "/a%2fb/../c?x=1&y=%20"
      local field = signed("@request-target date", { "@request-target: post " .. target, "date: " .. NOW })
      assert.equal(200, send(field, nil, { path = target, method = "POST", body = "x" }).status)
      assert.equal(401, send(field, nil, { path = target .. "1", method = "POST", body = "x" }).status)
      assert.equal(401, send(field, nil, { path = target, method = "PUT", body = "x" }).status)
    end)

    it("the request line", function()
      start()
      local field = signed("request-line", { "GET /x?y HTTP/1.1" })
      assert.equal(200, send(field, nil, { path = "/x?y" }).status)
      assert.equal(401, send(field, nil, { path = "/x?z" }).status)
    end)

    it("fields by any spelling of their names, which stand in their lines as they were named", function()
      start()
      assert.equal(200, send(signed("X-Thing Date", { "X-Thing: 1", "Date: " .. NOW }), { ["x-thing"] = "1" }).status)
      assert.equal(401, send(signed("X-Thing Date", { "x-thing: 1", "date: " .. NOW }), { ["x-thing"] = "1" }).status)
    end)

    it("that a field is not there", function()
      start()
      local field = signed("x-none date", { "x-none:", "date: " .. NOW })
      assert.equal(200, send(field).status)
      assert.equal(401, send(field, { ["x-none"] = "1" }).status)
    end)

    it("all fields of a name", function()
      start()
      local function of(values, lines)
        local headers = { { "Date", NOW }, { "Authorization", signed("x-role date", lines) } }
        for _, value in ipairs(values) do headers[#headers + 1] = { "X-Role", value } end
        return gateway:request { path = "/", headers = headers }.status
      end
      assert.equal(200, of({ "a", "b", "c" }, { "x-role: a, b, c", "date: " .. NOW }))
      assert.equal(401, of({ "a", "b" }, { "x-role: a", "date: " .. NOW }))
    end)
  end)

  it("refuses what it cannot read", function()
    start()
    local good = { username = "alice", algorithm = "hmac-sha256", headers = "date", signature = "x" }
    for name in pairs(good) do
      local less = {}
      for key, value in pairs(good) do less[key] = key ~= name and value or nil end
      assert_refused(CANNOT, send(hmac(less)))
    end
    local whole = signed("date", { "date: " .. NOW })
    assert.matches('^hmac username="alice"', whole)
    for _, value in ipairs { "hmac", "hmac ", signed("", { "" }), signed("  ", { "" }), signed(("a "):rep(101), { "" }),
      'hmac username="alice', "hmac =", 'hmac ="" ="', "hmacx" .. whole:sub(5),
      "Bearer x", "", whole:sub(6), whole .. ', username="alice"',
      signed("date", { "date: " .. NOW }, { username = "bob" }) } do
      assert_refused(CANNOT, send(value))
    end
    assert_refused(CANNOT, gateway:request { path = "/", headers = { { "Date", NOW }, { "Authorization", whole },
      { "authorization", whole } } })
  end)

  it("refuses a signature that is not of this request and secret", function()
    start()
    for _, changes in ipairs { { secret = "Secret" }, { signature = "" }, { signature = "!" },
      { signature = crypto.base64_encode(crypto.hmac("sha256", "secret", "date: " .. NOW)):sub(1, -5) } } do
      assert_refused(WRONG, send(signed("date", { "date: " .. NOW }, changes)))
    end
    assert_refused(WRONG, send(signed("date", { "date: x" })))
  end)

  it("refuses a request without any signature", function()
    start()
    assert_refused("Unauthorized", gateway:get("/", { Date = NOW }))
  end)

  it("says its realm", function()
    start { realm = "inner" }
    assert.equal('hmac realm="inner"', gateway:get("/").headers["www-authenticate"])
  end)

  it("looks at Proxy-Authorization first", function()
    start()
    local good, bad = signed("date", { "date: " .. NOW }), signed("date", { "x" })
    assert.equal(200, send("Bearer x", { ["Proxy-Authorization"] = good }).status)
    assert.equal(200, send(good, { ["Proxy-Authorization"] = "Basic x" }).status)
    assert.equal(401, send(good, { ["Proxy-Authorization"] = bad }).status)
    assert.equal(200, send(false, { ["Proxy-Authorization"] = good, Authorization = false }).status)
  end)

  it("takes parameters in any order, as clients write them", function()
    start()
    local signature = crypto.base64_encode(crypto.hmac("sha256", "secret", "date: " .. NOW))
    assert.equal(200, send(('HMAC signature="%s",headers="date",algorithm="hmac-sha256",   username="alice"')
      :format(signature)).status)
  end)

  describe("takes a date", function()
    local function at(date, x_date, names)
      local lines = {}
      for name in names:gmatch("%S+") do lines[#lines + 1] = name .. ": " .. (name == "date" and date or x_date) end
      return send(signed(names, lines), { Date = date or false, ["X-Date"] = x_date })
    end

    local MINUTE_AGO, DAY_AGO = "Wed, 31 Dec 2025 23:59:00 GMT", "Wed, 31 Dec 2025 00:00:00 GMT"

    it("within clock_skew, on both sides", function()
      start { clock_skew = 60 }
      assert.equal(200, at(MINUTE_AGO, nil, "date").status)
      assert.equal(200, at("Thu, 01 Jan 2026 00:01:00 GMT", nil, "date").status)
      start { clock_skew = 60 }
      assert_refused(LATE, at("Wed, 31 Dec 2025 23:58:59 GMT", nil, "date"))
      assert_refused(LATE, at("Thu, 01 Jan 2026 00:01:01 GMT", nil, "date"))
      assert_refused(LATE, at("today", nil, "date"))
    end)

    it("in X-Date, which clients can set that cannot set Date", function()
      start()
      assert.equal(200, at(nil, NOW, "x-date").status)
      assert.equal(200, at(DAY_AGO, NOW, "x-date").status)
    end)

    it("that is signed before one that anybody could have added", function()
      start()
      assert_refused(LATE, at(DAY_AGO, NOW, "date"))
      assert.equal(200, at(DAY_AGO, NOW, "date x-date").status)
    end)

    it("once, and not twice", function()
      start()
      assert_refused(LATE, gateway:request { path = "/", headers = { { "Date", NOW }, { "Date", NOW },
        { "Authorization", signed("x-a", { "x-a:" }) } } })
    end)
  end)

  it("wants signed what enforce_headers names", function()
    start { enforce_headers = { "Date", "@request-target" } }
    assert_refused(CANNOT, send(signed("date", { "date: " .. NOW })))
    assert_refused(CANNOT, send(signed("@request-target", { "@request-target: get /" })))
    assert.equal(200, send(signed("@request-target Date", { "@request-target: get /", "Date: " .. NOW })).status)
  end)

  describe("with validate_request_body", function()
    local function post(body, digest)
      return send(signed("date digest", { "date: " .. NOW, digest and "digest: " .. digest or "digest:" }),
        { Digest = digest }, { method = "POST", body = body })
    end

    local function digest_of(body)
      return "SHA-256=" .. crypto.base64_encode(crypto.digest("sha256", body))
    end

    it("wants a body to have its digest", function()
      start { validate_request_body = true }
      assert_refused(WRONG, post("body", nil))
      assert_refused(WRONG, post("body", digest_of "other"))
      assert_refused(WRONG, post("", digest_of "other"))
      assert.equal(200, post("body", digest_of "body").status)
      assert.equal("body", seen().body)
      assert.equal(200, post("", digest_of "").status)
      assert.equal(200, post(nil, nil).status)
    end)

    it("does not look at bodies otherwise", function()
      start()
      assert.equal(200, post("body", digest_of "other").status)
    end)
  end)

  describe("with hide_credentials", function()
    it("keeps the signature from the service, and other schemes not", function()
      start { hide_credentials = true }
      assert.equal(200, send("Bearer x", { ["Proxy-Authorization"] = signed("date", { "date: " .. NOW }) }).status)
      assert.is_nil(seen().headers["proxy-authorization"])
      assert.equal("Bearer x", seen().headers.authorization)
    end)

    it("also one that is wrong, of who is served as anonymous", function()
      start { hide_credentials = true, anonymous = "nobody" }
      assert.equal(200, send(signed("date", { "wrong" })).status)
      assert.is_nil(seen().headers.authorization)
    end)

    it("shows it otherwise", function()
      start()
      local field = signed("date", { "date: " .. NOW })
      send(field)
      assert.equal(field, seen().headers.authorization)
    end)
  end)

  it("serves who has no good signature as anonymous, when there is such a consumer", function()
    start { anonymous = "nobody" }
    for _, value in ipairs { "", "hmac", signed("date", { "wrong" }) } do
      assert.equal(200, send(value).status)
      assert.equal("nobody", seen().headers["x-consumer-username"])
      assert.equal("true", seen().headers["x-anonymous-consumer"])
    end
    start { anonymous = "missing" }
    local response = gateway:get("/")
    assert.equal(500, response.status)
    assert.equal("anonymous consumer missing is configured but doesn't exist", response.json.message)
  end)

  describe("refuses a configuration", function()
    local function problem(plugin)
      plugin.name = "hmac-auth"
      return select(2, spec.check { consumers = { { username = "alice" } }, plugins = { plugin } })
    end

    it("with an algorithm that it does not know, or no time at all", function()
      assert.matches("config.algorithms[0]: expected one of", problem { config = { algorithms = { "hmac-md5" } } }, 1,
        true)
      assert.matches("config.clock_skew: expected", problem { config = { clock_skew = 0 } }, 1, true)
    end)

    it("for one consumer", function()
      assert.matches("consumer: expected nothing", problem { consumer = "alice" }, 1, true)
    end)
  end)
end)
