-- SPDX-License-Identifier: Apache-2.0
-- What of an identity reaches a service, whoever speaks which protocol; and passwords that take their time.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http2 = require "spec.support.http2"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"
require "sluice.spec" -- loads the core, which the next one needs
local crypto = require "sluice.crypto"

local NAMES = { "X-Consumer-ID", "X-Consumer-Username", "X-Consumer-Custom-ID", "X-Consumer-Groups",
  "X-Credential-Identifier", "X-Credential-Username", "X-Anonymous-Consumer", "X-Authenticated-Groups",
  "X-Authenticated-UserID", "X-Authenticated-Scope" }

-- Every name in spellings that some server takes for the same.
local function forged(lower)
  local fields = {}
  local function add(name)
    fields[#fields + 1] = { lower and name:lower() or name, "forged" }
  end
  for _, name in ipairs(NAMES) do
    add(name)
    add(name:upper())
    add((name:gsub("-", "_")))
    add((name:gsub("-", "_", 1)))
    add((name:gsub("-", ".")))
  end
  return fields
end

local function basic(password)
  return "Basic " .. crypto.base64_encode("alice:" .. password)
end

-- "hello", which takes 85 ms to check.
local SLOW = "$y$jBT$k2XAnEHBqQ1Ct2aMXFKNa/HAmA1BpMnBsYHMWB4NZN4$Jiw1xXTZO2bq8DmyhFbJI2hWivtIyBkX6yYdZJIIm1."

describe("authentication in a gateway", function()
  local gw, up

  setup(function()
    up = upstream.start()
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { workers = 1 },
      services = { { name = "s", url = up:url(), routes = {
        { name = "key", paths = { "/key" }, strip_path = false, plugins = { { name = "key-auth",
          config = { anonymous = "nobody", run_on_preflight = false } } } },
        { name = "signed", paths = { "/signed" }, plugins = { { name = "hmac-auth" } } },
        { name = "password", paths = { "/password" }, plugins = { { name = "basic-auth" } } },
      } } },
      consumers = {
        { username = "alice", custom_id = "a-1", keyauth_credentials = { { key = "sesame" } },
          hmacauth_credentials = { { username = "alice", secret = "secret" } },
          basicauth_credentials = { { username = "alice", password = SLOW } } },
        { username = "nobody" },
      },
    }, { http2 = true })
  end)

  teardown(function()
    if gw then gw:stop() end
    if up then up:stop() end
  end)

  local function assert_clean(body, username)
    local seen = cjson.decode(body)
    for _, list in ipairs { seen.fields, seen.trailers } do
      for _, field in ipairs(list) do assert.not_equal("forged", field[2], field[1]) end
    end
    assert.equal(username, seen.headers["x-consumer-username"])
    local kept = false
    for _, field in ipairs(seen.trailers) do kept = kept or field[1]:lower() == "x-kept" end
    return kept
  end

  for who, key in pairs { alice = "sesame", nobody = "wrong" } do
    it("lets no identity from outside through to who serves " .. who .. ", over HTTP/1.1", function()
      local headers, trailers = forged(), {}
      for i, field in ipairs(forged()) do trailers[i] = field[1] .. ": " .. field[2] .. "\r\n" end
      headers[#headers + 1] = { "apikey", key }
      headers[#headers + 1] = { "Transfer-Encoding", "chunked" }
      local response = gw:request { method = "POST", path = "/key", headers = headers,
        body = "3\r\nabc\r\n0\r\n" .. table.concat(trailers) .. "X-Kept: 1\r\n\r\n" }
      assert.equal(200, response.status)
      assert.is_true(assert_clean(response.body, who))
    end)

    it("lets no identity from outside through to who serves " .. who .. ", over HTTP/2", function()
      local headers, trailers = forged(true), forged(true)
      headers[#headers + 1] = { "apikey", key }
      trailers[#trailers + 1] = { "x-kept", "1" }
      local client = http2.connect(gw.port)
      local answer = client:wait(client:request { path = "/key", headers = headers, body = "abc", trailers = trailers })
      client:close()
      assert.equal(200, tonumber(answer.status), cjson.encode(answer))
      assert.is_true(assert_clean(answer.body, who))
    end)
  end

  it("lets none through with a preflight that it does not look at", function()
    local response = gw:request { method = "OPTIONS", path = "/key", headers = forged() }
    assert.equal(200, response.status)
    assert_clean(response.body, nil)
  end)

  it("tells the service the identity although the client calls its fields this connection's own", function()
    local response = gw:request { path = "/key", headers = { { "apikey", "sesame" },
      { "Connection", "X-Consumer-Username, X-Consumer-ID, x-credential-identifier" } } }
    local seen = cjson.decode(response.body).headers
    assert.equal("alice", seen["x-consumer-username"])
    assert.is_string(seen["x-consumer-id"])
    assert.is_string(seen["x-credential-identifier"])
  end)

  it("takes a signature of the host and the request line over HTTP/2, as clients write it", function()
    local client = http2.connect(gw.port)
    for line, status in pairs { ["HTTP/2"] = 200, ["HTTP/2.0"] = 200, ["HTTP/1.1"] = 401 } do
      local date = os.date("!%a, %d %b %Y %H:%M:%S GMT")
      local text = ("host: signed.test\ndate: %s\nGET /signed?x %s"):format(date, line)
      local signature = crypto.base64_encode(crypto.hmac("sha256", "secret", text))
      local field = ('hmac username="alice", algorithm="hmac-sha256", headers="host date request-line", signature="%s"')
        :format(signature)
      local answer = client:wait(client:request { path = "/signed?x", authority = "signed.test",
        headers = { date = date, authorization = field } })
      assert.equal(status, tonumber(answer.status), line)
    end
    client:close()
  end)

  -- Twelve clients with the password that `password_of` gives for each. The worker, which has taken their connections
  -- by then, stands still until all have asked, so that it finds them all before it has checked any.
  local function ask_at_once(password_of)
    local clients, worker = {}, gw:workers()[1]
    for i = 1, 12 do
      clients[i] = gw:connect({ timeout = 30 })
      assert.equal(200, clients[i]:request({ path = "/key", headers = { apikey = "sesame" } }).status)
    end
    process.hold(worker)
    for i = 1, 12 do
      clients[i]:send(("GET /password HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\n\r\n"):format(basic(password_of(i))))
    end
    process.go_on(worker)
    return clients
  end

  it("checks a few passwords at a time for one address, and serves others meanwhile", function()
    local clients, counts = ask_at_once(function(i) return "guess " .. i end), {}
    assert.equal(200, gw:get("/key", { apikey = "sesame" }).status)
    for i = 1, 12 do
      local response = clients[i]:read_response()
      counts[response.status] = (counts[response.status] or 0) + 1
      if response.status == 503 then assert.equal("1", response.headers["retry-after"]) end
      clients[i]:close()
    end
    assert.same({ [401] = 8, [503] = 4 }, counts)
    assert.equal(200, gw:get("/password", { Authorization = basic "hello" }).status)
  end)

  it("checks a password once for all who come with it at once", function()
    local clients, statuses = ask_at_once(function() return "wrong" end), {}
    for i = 1, 12 do
      local response = clients[i]:read_response()
      statuses[response.status] = true
      clients[i]:close()
    end
    assert.same({ [401] = true }, statuses)
  end)
end)
