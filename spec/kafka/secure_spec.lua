-- SPDX-License-Identifier: Apache-2.0
-- Clusters that ask who comes: TLS, client certificates, SASL PLAIN, SCRAM and OAUTHBEARER, with a real broker.
local cjson = require "cjson"
local ffi = require "ffi"
local client = require "spec.kafka.client"
local events = require "spec.kafka.events"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"
local secure = require "spec.support.kafka_secure"

-- Runs the Lua code that a request brings, and answers with what it returned.
local RUNS = [[
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = { chunk(require("sluice").kafka, require("sluice")) } })
end }
]]

-- Out and back: the producer logs in, and so does the consumer.
local THERE_AND_BACK = [[
local kafka, sluice = ...
local at, err, code = kafka.produce { cluster = %q, topic = %q, value = %q, timeout = 10 }
if not at then return err, code end
local reader = assert(kafka.reader { cluster = %q, topic = at.topic, from = { [at.partition] = at.offset } })
local record = assert(reader:next(10))
reader:close()
return record.value
]]

-- Clusters that let nobody in, and a record to each.
local FAILING = { "stranger", "distrusting", "wrong", "unable", "refused", "broken", "foreign", "late", "outdated",
  "nobody", "elsewhere", "expired", "open", "nameless", "mismatched" }
local PRODUCE_TO_ALL = [[
local kafka, sluice = ...
local codes = {}
for name in ("%s"):gmatch "[^ ]+" do
  local at, err, code = kafka.produce { cluster = name, topic = %q, value = "x", timeout = 0.01 }
  codes[#codes + 1] = name .. " " .. (code or "ok")
end
return table.concat(codes, ", ")
]]

-- What `make LIBRDKAFKA=newer` makes of bin/sluice, from `make peers`: with a librdkafka that Kafka 4 lets in by SCRAM.
local NEWER = ".build/release/sluice-newer"
local SCRAM_SINCE = 0x02060100

pcall(ffi.cdef, "int rd_kafka_version(void);")

describe("a cluster", function()
  local own, tokens, gw, topic

  local function clusters()
    local function sasl(mechanism, more)
      local properties = { ["bootstrap.servers"] = own:servers "SASL", ["security.protocol"] = "sasl_plaintext",
        ["sasl.mechanism"] = mechanism, ["sasl.username"] = secure.USER, ["sasl.password"] = secure.PASSWORD }
      for name, value in pairs(more or {}) do properties[name] = value end
      return properties
    end
    local function token(path, more)
      local properties = { ["bootstrap.servers"] = own:servers "TOKENS", ["security.protocol"] = "sasl_plaintext",
        ["sasl.mechanism"] = "OAUTHBEARER", ["sasl.oauthbearer.method"] = "oidc",
        ["sasl.oauthbearer.client.id"] = "gateway", ["sasl.oauthbearer.client.secret"] = "s3cret/+&",
        ["sasl.oauthbearer.scope"] = "kafka:all", ["sasl.oauthbearer.extensions"] = "logicalCluster=spec,pool=one",
        ["sasl.oauthbearer.token.endpoint.url"] = tokens:url() .. path,
        ["https.ca.location"] = own.ca.certificate }
      for name, value in pairs(more or {}) do properties[name] = value end
      return properties
    end
    local tls = { ["bootstrap.servers"] = own:servers "TLS", ["security.protocol"] = "ssl",
      ["ssl.ca.location"] = own.ca.certificate }
    local function verified(listener)
      return { ["bootstrap.servers"] = own:servers(listener), ["security.protocol"] = "ssl",
        ["ssl.ca.location"] = own.ca.certificate }
    end
    local function mutual(certificate)
      local properties = verified "MUTUAL"
      properties["ssl.certificate.location"], properties["ssl.key.location"] = certificate.certificate, certificate.key
      return properties
    end
    local all = {
      tls = tls, mutual = mutual(own.client), stranger = mutual(own.stranger), outdated = mutual(own.outdated),
      nobody = verified "MUTUAL", elsewhere = verified "ELSEWHERE", expired = verified "EXPIRED",
      open = { ["bootstrap.servers"] = own:servers "TLS" }, nameless = { ["bootstrap.servers"] = own:servers "SASL" },
      mismatched = { ["bootstrap.servers"] = own:servers "TOKENS", ["security.protocol"] = "sasl_plaintext",
        ["sasl.mechanism"] = "PLAIN", ["sasl.username"] = "a", ["sasl.password"] = "b" },
      distrusting = { ["bootstrap.servers"] = own:servers "TLS", ["security.protocol"] = "ssl" },
      trusting = { ["bootstrap.servers"] = own:servers "TLS", ["security.protocol"] = "ssl",
        ["enable.ssl.certificate.verification"] = false },
      plain = sasl "PLAIN", scram256 = sasl "SCRAM-SHA-256", scram512 = sasl "SCRAM-SHA-512",
      unable = sasl "SCRAM-SHA-256",
      both = sasl("SCRAM-SHA-512", { ["bootstrap.servers"] = own:servers "BOTH", ["security.protocol"] = "sasl_ssl",
        ["ssl.ca.location"] = own.ca.certificate }),
      wrong = sasl("SCRAM-SHA-256", { ["sasl.password"] = "guess" }),
      unread = sasl("PLAIN", { ["sasl.password"] = "guess" }),
      tokens = token "/token/600", brief = token "/token/2/6", late = token "/late/2/600",
      refused = token "/refuse", broken = token "/broken",
      foreign = token("/token/600", { ["https.ca.location"] = own.stranger.certificate }),
      unverified = token("/token/600", { ["https.ca.location"] = own.stranger.certificate,
        ["sasl.oauthbearer.token.endpoint.verify"] = false }),
    }
    -- What cannot be sent is not to hold up the gateway's end.
    for _, name in ipairs(FAILING) do
      all[name]["message.timeout.ms"] = 3000
    end
    return all
  end

  local function servers_of(listener)
    return { { host = "127.0.0.1", port = own.broker.ports[listener] } }
  end

  local function in_kongs_form()
    return { name = "in", paths = { "/in" }, plugins = { { name = "kafka-upstream", config = {
      bootstrap_servers = servers_of "SASL", topic = topic, value = "body",
      authentication = { strategy = "sasl", mechanism = "PLAIN", user = secure.USER, password = secure.PASSWORD },
    } } } }
  end

  -- The token server's certificate is nobody's that the system knows.
  local function out_in_kongs_form()
    return { name = "out", paths = { "/out" }, plugins = { { name = "kafka-consume", config = {
      bootstrap_servers = servers_of "TOKENS", topics = { { name = topic } }, mode = "server-sent-events",
      auto_offset_reset = "earliest",
      authentication = { strategy = "sasl", mechanism = "OAUTHBEARER", oauthbearer = {
        client_id = "gateway", client_secret = "s3cret/+&", scopes = { "a", "b" }, extensions = { pool = "two" },
        token_endpoint_url = tokens:url() .. "/token/600", token_endpoint_tls_verify = false } },
    } } } }
  end

  local function start(program)
    return gateway.start({ _format_version = "3.0", gateway = { kafka = clusters() },
      routes = { { name = "all", paths = { "/" }, plugins = { { name = "runs" } } }, in_kongs_form(),
        out_in_kongs_form() } }, { plugins = { runs = RUNS }, program = program })
  end

  setup(function()
    own = secure.start()
    topic = own.broker:topic(1)
    tokens = own:token_server { tls = { certificate = own.server.certificate, key = own.server.key } }
    gw = start()
  end)

  teardown(function()
    if gw then gw:stop() end
    if tokens then tokens:stop() end
    if own then own:stop() end
  end)

  local function run(code, seconds)
    local response = gw:request { path = "/", body = code, timeout = seconds or 20 }
    assert.equal(200, response.status, gw:log())
    return unpack(cjson.decode(response.body).said)
  end

  local function status(name)
    local _, out = gw:command("status", "--json")
    for _, cluster in ipairs(cjson.decode(out).worker.kafka) do
      if cluster.name == name then return cluster end
    end
  end

  local function reaches(name)
    local value = "through " .. name
    local said = run(THERE_AND_BACK:format(name, topic, value, name))
    assert.equal(value, said, cjson.encode(status(name)))
    -- The broker ends connections of tokens, and until there is another one the cluster is not up.
    process.wait_until(function() return status(name).state == "up" end, 20, name .. " to be up")
  end

  local provoked

  local function provoke()
    provoked = os.time()
    assert.equal(table.concat(FAILING, " timeout, ") .. " timeout",
      (run(PRODUCE_TO_ALL:format(table.concat(FAILING, " "), topic))))
  end

  -- The cause is there once the record has timed out too, which librdkafka tells last.
  local function fails(name, pattern)
    process.wait_until(function()
      local it = status(name)
      return it.failed > 0 and it.state == "down" and (it.last_error or ""):find(pattern)
    end, 20, function() return pattern .. " in " .. cjson.encode(status(name)) end)
    local at = status(name).last_error_at
    assert.is_true(at >= provoked - 1 and at <= os.time() + 1, at .. " since " .. provoked)
  end

  it("is reached by TLS", function() reaches "tls" end)
  it("is reached by TLS with a client certificate", function() reaches "mutual" end)
  it("is reached by TLS without verification, where that is wanted", function() reaches "trusting" end)
  it("takes a password by PLAIN", function() reaches "plain" end)
  it("takes a token, of a member of a group too", function()
    reaches "tokens"
    reaches "unverified"
    assert.same({ "through tokens" }, { run(([[
      local kafka = ...
      local member = assert(kafka.group { cluster = "tokens", group = "spec", topics = { %q },
        from = "earliest" })
      local value
      repeat value = assert(member:next(15)).value until value == "through tokens"
      member:close()
      return value
    ]]):format(topic)) })
  end)

  it("is reached by what Kong's plugins say of it", function()
    local response = gw:request { path = "/in", body = "in Kong's form", timeout = 20 }
    assert.equal(200, response.status, response.body)
    local stream = assert(events.open(gw.port, "/out"))
    local event
    repeat event = assert(stream:next()) until event.data:find("in Kong's form", 1, true)
    stream:close()
  end)

  -- Its brokers show certificates that the system trusts.
  it("is reached by an API key and its secret, as Confluent Cloud is", function()
    local function route(path, name, more)
      local config = { bootstrap_servers = servers_of "BOTH", cluster_api_key = secure.USER,
        cluster_api_secret = secure.PASSWORD }
      for field, value in pairs(more) do config[field] = value end
      return { name = path, paths = { "/" .. path }, plugins = { { name = name, config = config } } }
    end
    local cloud = gateway.start({ _format_version = "3.0", routes = {
      route("in", "confluent", { topic = topic, value = "body" }),
      route("wrong", "confluent", { topic = topic, value = "body", cluster_api_secret = "guess", timeout = 1000 }),
      route("out", "confluent-consume", { topics = { { name = topic } }, mode = "server-sent-events" }),
    } }, { env = { SSL_CERT_FILE = own.ca.certificate } })
    finally(function() cloud:stop() end)
    local response = cloud:request { path = "/in", body = "into the cloud", timeout = 20 }
    assert.equal(200, response.status, response.body .. cloud:log())
    local stream = assert(events.open(cloud.port, "/out"))
    local event
    repeat event = assert(stream:next()) until event.data:find("into the cloud", 1, true)
    stream:close()
    assert.is_true(cloud:request({ path = "/wrong", body = "x", timeout = 20 }).status >= 500)
  end)

  it("that lets nobody in holds nobody up", provoke)

  it("says that the broker's certificate is nobody's that is trusted", function()
    fails("distrusting", "certificate verify failed: .* issuer certificate %(subject=/CN=localhost, issuer=/CN=ca%)")
  end)

  it("says that the broker's certificate is for another name", function()
    fails("elsewhere", "certificate verify failed: IP address mismatch %(subject=/CN=elsewhere.test")
  end)

  it("says that the broker's certificate is too old", function()
    fails("expired", "certificate verify failed: certificate has expired %(subject=/CN=old")
  end)

  it("says that the broker does not take our certificate", function()
    fails("stranger", "^the broker refuses our certificate %(ssl%.certificate%): ssl://.*SSL")
    fails("outdated", "^the broker refuses our certificate")
  end)

  it("says that the broker wants a certificate", function()
    fails("nobody", "^the broker wants a certificate of us %(ssl%.certificate%): ssl://.*SSL")
  end)

  it("says that the broker wants TLS, a login, another login", function()
    fails("open", "security%.protocol")
    fails("nameless", "security%.protocol")
    fails("mismatched", "supported mechanisms: OAUTHBEARER")
  end)
  it("says that the password is wrong", function() fails("wrong", "[Aa]uthentication failed") end)

  -- Its only client is a consumer that never starts.
  it("says why it cannot be read", function()
    local said = run(([[
      local reader, err = (...).reader { cluster = "unread", topic = %q, from = "earliest" }
      if not reader then return err end
      local record, why = reader:next(15)
      reader:close()
      return record and record.value or why
    ]]):format(topic), 30)
    assert.truthy(said:find(topic, 1, true), said)
    local it = status "unread"
    assert.equal("down", it.state)
    assert.matches("Authentication failed: Invalid username or password", it.last_error, 1, true)
  end)

  it("says when it is librdkafka that cannot log in by SCRAM", function()
    if client.C.rd_kafka_version() >= SCRAM_SINCE then return reaches "scram256" end
    fails("unable", "^librdkafka %S+ cannot log in by SCRAM at Kafka 4: build with `make LIBRDKAFKA=newer`; or: sasl")
  end)

  it("says why there is no token", function()
    fails("refused", "the token server answers 401: who is that%?")
    fails("broken", "the token server's answer has no access_token")
    fails("foreign", "the token server: .*certificate")
    fails("late", "the token server takes longer than its tokens live")
  end)

  it("is given new tokens before the old ones end, while one produces", function()
    -- The broker ends a connection after 2 seconds, and takes a token for 6. The gateway is told that it is for 2, and
    -- so has seconds to fetch the next one, however busy the machine.
    assert.same({ 35 }, { run(([[
      local kafka, sluice = ...
      local good, bad = 0, {}
      for i = 1, 35 do
        local at, err, code = kafka.produce { cluster = "brief", topic = %q, value = "x", timeout = 20 }
        if at then good = good + 1 else bad[#bad + 1] = ("record %%d: %%s: %%s"):format(i, code, err) end
        sluice.sleep(0.2)
      end
      return good, unpack(bad)
    ]]):format(topic), 60) })
    local asked = 0
    for _, request in ipairs(tokens:stats().log) do
      if request.target:find("/token/2", 1, true) then asked = asked + 1 end
    end
    assert.is_true(asked >= 2, asked .. " tokens")
  end)

  describe("with a newer librdkafka", function()
    local before

    setup(function()
      local file = assert(io.open(NEWER), "no newer librdkafka here yet: run `make peers`")
      file:close()
      before, gw = gw, start(NEWER)
    end)

    teardown(function()
      if before then
        gw:stop()
        gw = before
      end
    end)

    it("that lets nobody in holds nobody up", provoke)
    it("takes a password by SCRAM-SHA-256", function() reaches "scram256" end)
    it("takes a password by SCRAM-SHA-512", function() reaches "scram512" end)
    it("takes a password by SCRAM inside TLS", function() reaches "both" end)
    it("says that the password is wrong", function() fails("wrong", "^sasl.*[Aa]uthentication failed") end)
    it("takes a token", function() reaches "tokens" end)
    it("is reached by TLS with a client certificate", function() reaches "mutual" end)
    it("says that the broker's certificate is for another name", function()
      fails("elsewhere", "certificate verify failed: IP address mismatch %(subject=/CN=elsewhere.test")
    end)
    it("says that the broker wants TLS", function() fails("open", "security%.protocol") end)
  end)
end)
