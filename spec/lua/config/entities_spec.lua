-- SPDX-License-Identifier: Apache-2.0
local loading = require "spec.lua.config.loading"

local function only(text, collection, environment)
  local list = loading.good(text, environment):list(collection)
  assert.equal(1, #list)
  return list[1]
end

local function without_ids(record, id)
  record.id = id
  return record
end

describe("entities", function()
  it("have Kong's defaults: a service", function()
    local service = only("services: [{name: s, host: example.com}]", "services")
    assert.same({ name = "s", host = "example.com", protocol = "http", port = 80, retries = 5, enabled = true,
      connect_timeout = 60000, read_timeout = 60000, write_timeout = 60000 }, without_ids(service))
  end)

  it("have Kong's defaults: a route", function()
    local route = only("routes: [{name: r, paths: [/]}]", "routes")
    assert.same({ name = "r", paths = { "/" }, protocols = { "http", "https" }, https_redirect_status_code = 426,
      regex_priority = 0, strip_path = true, path_handling = "v0", preserve_host = false, request_buffering = true,
      response_buffering = true }, without_ids(route))
  end)

  it("have Kong's defaults: an upstream and its targets", function()
    local loaded = loading.good "upstreams: [{name: up, targets: [{target: 10.0.0.1}, {target: 'h:81', weight: 0}]}]"
    local upstream, targets = loaded:list("upstreams")[1], loaded:list("targets")
    assert.same({ "round-robin", "none", "none", "/", 10000, false }, { upstream.algorithm, upstream.hash_on,
      upstream.hash_fallback, upstream.hash_on_cookie_path, upstream.slots, upstream.use_srv_name })
    local active, passive = upstream.healthchecks.active, upstream.healthchecks.passive
    assert.same({ type = "http", timeout = 1, concurrency = 10, http_path = "/", https_verify_certificate = true,
      healthy = { interval = 0, http_statuses = { 200, 302 }, successes = 0 }, unhealthy = { interval = 0,
        http_statuses = { 429, 404, 500, 501, 502, 503, 504, 505 }, tcp_failures = 0, timeouts = 0,
        http_failures = 0 } }, active)
    assert.same({ http_statuses = { 429, 500, 503 }, tcp_failures = 0, timeouts = 0, http_failures = 0 },
      passive.unhealthy)
    assert.equal(0, upstream.healthchecks.threshold)
    assert.same({ target = "10.0.0.1:8000", weight = 100, upstream = upstream.id }, without_ids(targets[1]))
    assert.same({ "h:81", 0 }, { targets[2].target, targets[2].weight })
  end)

  it("take a service's url apart", function()
    local function parts(url)
      local s = only(("services: [{name: s, url: '%s'}]"):format(url), "services")
      return { s.protocol, s.host, s.port, s.path }
    end
    assert.same({ "http", "a.com", 80 }, parts "http://a.com")
    assert.same({ "https", "a.com", 443, "/x/y" }, parts "https://a.com/x/y")
    assert.same({ "http", "::1", 8080, "/" }, parts "http://[::1]:8080/")
  end)

  it("may be nested or flat, and refer by name, by id, as text or map", function()
    local nested = loading.good [[
services: [{name: s, host: h, routes: [{name: r, paths: [/], plugins: [{name: hello}]}]}]
]]
    local flat = loading.good [[
plugins: [{name: hello, route: r}]
routes: [{name: r, paths: [/], service: {name: s}}]
services: [{name: s, host: h}]
]]
    for _, collection in ipairs { "services", "routes", "plugins" } do
      assert.same(nested:list(collection), flat:list(collection))
    end
    assert.equal(nested:list("services")[1].id, nested:list("routes")[1].service)
    assert.equal(nested:list("routes")[1].id, nested:list("plugins")[1].route)
    local by_id = loading.good [[
services: [{id: 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319, host: h}]
routes: [{paths: [/], service: {id: 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319}}]
]]
    assert.equal("5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319", by_id:list("routes")[1].service)
  end)

  it("keep their ids when others come, go and change", function()
    local before = loading.good "routes: [{paths: [/a]}, {name: r, paths: [/b]}]\nplugins: [{name: hello, route: r}]"
    local after = loading.good [[
routes: [{paths: [/new]}, {name: r, paths: [/other]}, {paths: [/a]}]
plugins: [{name: hello}, {name: hello, route: r, config: {greeting: hi}}]
]]
    assert.equal(before:list("routes")[1].id, after:list("routes")[3].id)
    assert.equal(before:list("routes")[2].id, after:list("routes")[2].id)
    assert.equal(before:list("plugins")[1].id, after:list("plugins")[2].id)
    assert.not_equal(after:list("plugins")[1].id, after:list("plugins")[2].id)
  end)

  it("give consumers their credentials, groups and plugins", function()
    local loaded = loading.good [[
consumer_groups: [{name: gold}, {name: silver, consumers: [{username: bob}]}]
consumers:
- username: bob
  custom_id: "7"
  keyauth_credentials: [{key: k}]
  basicauth_credentials: [{username: bob, password: secret}]
  hmacauth_credentials: [{username: bob, secret: s}]
  jwt_secrets: [{key: j, secret: s}]
  acls: [{group: admins}]
  groups: [{name: gold}]
  plugins: [{name: hello}]
]]
    local bob = loaded:list("consumers")[1].id
    for _, collection in ipairs { "keyauth_credentials", "basicauth_credentials", "hmacauth_credentials",
      "jwt_secrets", "acls", "plugins" } do
      assert.message(collection).equal(bob, loaded:list(collection)[1].consumer)
    end
    local memberships, groups = loaded:list("consumer_group_consumers"), loaded:list("consumer_groups")
    assert.same({ groups[1].id, groups[2].id }, { memberships[2].consumer_group, memberships[1].consumer_group })
    assert.equal("HS256", loaded:list("jwt_secrets")[1].algorithm)
  end)

  describe("hash a password", function()
    local password = require "sluice.config.password"
    local ALICE = "consumers: [{username: alice, basicauth_credentials: [{username: alice, password: '%s'}]}]"

    local function kept(text, file)
      return only((file or "") .. ALICE:format(text), "basicauth_credentials").password
    end

    it("that stands there plain, the same each time", function()
      local hash = kept "open sesame"
      assert.matches("^%$y%$", hash)
      assert.is_true(password.fits("open sesame", hash))
      assert.is_false(password.fits("open sesame ", hash))
      assert.equal(hash, kept "open sesame")
    end)

    it("unless it is a hash as of crypt(5)", function()
      for _, hash in ipairs {
        "$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$fRDbSkxs65cP4RhKcZ7GYsmkyu6u5zsJGJYWXLyA3v2",
        "$2b$05$KBCwKxOzLha2MUDgW0PjXe5D9uuAp7I2O6z7376h1/7l92xku5xLG",
        "$6$k2XAnEHBqQ1Ct2aM$kKgROJUwJ9G/QuCn3rHQCy45bkf0d1Hj6Z8mQmypPGlBabIdADjuYYxco4UaiYfKMFZyXykhbI8puWMNMYQqO.",
      } do
        assert.equal(hash, kept(hash))
        assert.equal(hash, kept(hash, "_transform: false\n"))
      end
      assert.matches("^%$y%$j7T%$", kept "$y$j75$short")
    end)

    it("and none takes long by what it says of itself", function()
      local salt, y = "k2XAnEHBqQ1Ct2aM", ("x"):rep(43)
      local slow = { "$2b$17$" .. ("x"):rep(53), "$6$rounds=10000001$" .. salt .. "$" .. y .. y,
        "$y$jGT$" .. salt .. "$" .. y, "$7$LU..../....$" .. y }
      local quick = { "$2b$16$" .. ("x"):rep(53), "$6$rounds=10000000$" .. salt .. "$" .. y .. y, "$6$" .. salt .. "$"
        .. y .. y, "$y$jFT$" .. salt .. "$" .. y, "$y$j9T$" .. salt .. "$" .. y, "$7$CU..../....$" .. y }
      for _, hash in ipairs(slow) do assert.is_true(password.is_slow(hash), hash) end
      for _, hash in ipairs(quick) do assert.is_false(password.is_slow(hash), hash) end
    end)

    it("of 40 hex digits, which are Kong's hash only where the file says that nothing is plain", function()
      local sha1 = ("0123456789"):rep(4)
      assert.matches("^%$y%$", kept(sha1))
      assert.equal(sha1, kept(sha1, "_transform: false\n"))
    end)
  end)

  it("are warned of when they fall back on a consumer that is not there", function()
    local loaded = loading.good [[
consumers: [{username: nobody, custom_id: n}]
plugins: [{name: key-auth, config: {anonymous: nobdy}}, {name: key-auth, route: r, config: {anonymous: nobody}}]
routes: [{name: r, paths: [/]}]
]]
    assert.equal(1, #loaded.warnings)
    assert.matches('config.anonymous: there is no consumer "nobdy", did you mean "nobody"?', loaded.warnings[1].text, 1,
      true)
  end)

  it("name a Kafka cluster that is there, and are warned of when they need one that is not", function()
    local err = loading.error [[
gateway: {kafka: {east: {bootstrap.servers: a}, west: {bootstrap.servers: b}}}
plugins: [{name: events, config: {cluster: north}}]
]]
    assert.matches('config.cluster: expected a cluster of gateway.kafka (east or west), found "north"', err, 1, true)
    local loaded = loading.good [[
gateway: {kafka: {east: {bootstrap.servers: a}}}
routes: [{name: a, paths: [/a]}, {name: b, paths: [/b]}]
plugins:
- {name: events}
- {name: events, route: a, config: {cluster: east}}
- {name: events, route: b, config: {bootstrap_servers: [{host: a, port: 9092}]}}
]]
    assert.equal(1, #loaded.warnings)
    assert.matches("plugins%[0%].*config.cluster: it stands for main, and gateway.kafka has no cluster main",
      loaded.warnings[1].text)
  end)

  it("let the life of a key begin when it was made, or now", function()
    local before = os.time()
    local loaded = loading.good [[
consumers: [{username: a, keyauth_credentials: [{key: a, ttl: 60}, {key: b, ttl: 60, created_at: 5}, {key: c},
  {key: d, ttl: 0}]}]
]]
    local keys = loaded:list("keyauth_credentials")
    assert.is_true(keys[1].created_at >= before and keys[1].created_at <= os.time())
    assert.same({ 5 }, { keys[2].created_at, keys[3].created_at, keys[4].created_at })
    assert.equal(1, #loaded.warnings)
    assert.matches("keyauth_credentials%[0%].*: ttl: it counts from now", loaded.warnings[1].text)
  end)

  it("has keys of jwt_secrets read, and those named that their algorithm cannot use", function()
    require "sluice.spec" -- whose core reads them
    local PEM = "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\\n"
      .. "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\\n-----END PUBLIC KEY-----\\n"
    local text = 'consumers: [{username: a, jwt_secrets: [{key: k, algorithm: %s, rsa_public_key: "%s"}]}]'
    assert.equal(0, #loading.good(text:format("ES256", PEM)).warnings)
    local loaded = loading.good(text:format("ES384", PEM))
    assert.equal(1, #loaded.warnings)
    assert.matches("rsa_public_key: no token passes: ES384 needs a key of another kind than this (EC, P-256)",
      loaded.warnings[1].text, 1, true)
    assert.equal(1, #loading.good(text:format("RS256", PEM)).warnings)
  end)

  it("give consumers their keys of certificates", function()
    local loaded = loading.good [[
consumers:
- username: alice
  mtls_auth_credentials: [{subject_name: alice.example}, {subject_name: a, ca_certificate: {id:
    5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319}}]
ca_certificates:
- id: 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319
  cert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
mtls_auth_credentials: [{subject_name: b, consumer: alice, tags: [old]}]
]]
    local credentials = loaded:list("mtls_auth_credentials")
    local by_name = {}
    for _, credential in ipairs(credentials) do by_name[credential.subject_name] = credential end
    assert.equal(loaded:list("consumers")[1].id, by_name["alice.example"].consumer)
    assert.equal("5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319", by_name.a.ca_certificate)
    assert.same({ loaded:list("consumers")[1].id, { "old" } }, { by_name.b.consumer, by_name.b.tags })
  end)

  it("give a certificate its SNIs, written as texts or maps", function()
    local pem = [[
certificates:
- cert: |
    -----BEGIN CERTIFICATE-----
    AAAA
    -----END CERTIFICATE-----
  key: |
    -----BEGIN PRIVATE KEY-----
    AAAA
    -----END PRIVATE KEY-----
  snis: ["*", {name: a.com}, "*.b.com"]
]]
    local loaded = loading.good(pem)
    local names = {}
    for i, sni in ipairs(loaded:list("snis")) do
      names[i] = sni.name
      assert.equal(loaded:list("certificates")[1].id, sni.certificate)
    end
    assert.same({ "*", "a.com", "*.b.com" }, names)
  end)

  it("give plugins their schema's defaults and protocols", function()
    local plugin = only("plugins: [{name: key-auth}]", "plugins")
    assert.same({ { key_names = { "apikey" } }, { "http", "https" }, true },
      { plugin.config, plugin.protocols, plugin.enabled })
    assert.same({ "grpc", "grpcs", "http", "https" }, only("plugins: [{name: hello}]", "plugins").protocols)
  end)

  it("pass over empty lists of what is not supported", function()
    loading.good('_format_version: "3.0"\nkeys: []\nkey_sets: {}\nfilter_chains: null\nlicenses: []\n')
  end)

  it("share a plugin's configuration under _plugin_configs", function()
    local plugin = only([[
_plugin_configs: {polite: {greeting: good morning}}
plugins: [{name: hello, _config: polite}]
]], "plugins")
    assert.equal("good morning", plugin.config.greeting)
  end)

  it("of older formats have regular expressions marked by what they look like", function()
    local text = '_format_version: "%s"\nroutes: [{paths: ["/a", "/b/(.*)", "/c-d_e.f~g"]}]'
    assert.same({ "/a", "~/b/(.*)", "/c-d_e.f~g" }, only(text:format("2.1"), "routes").paths)
    assert.same({ "/a", "~/b/(.*)", "/c-d_e.f~g" }, only(text:format("1.1"), "routes").paths)
    assert.same({ "/a", "/b/(.*)", "/c-d_e.f~g" }, only(text:format("3.0"), "routes").paths)
  end)

  it("pass over what tools write beside them", function()
    local loaded = loading.good [[
_format_version: "3.0"
_comment: mine
_konnect: {control_plane_name: x}
_info: {select_tags: [a]}
services: [{name: s, host: h, _comment: hi, _ignore: [1, {a: 2}]}]
]]
    assert.is_nil(loaded:list("services")[1]._comment)
  end)

  it("may be written in JSON", function()
    local yaml = loading.good "services: [{name: s, host: h, routes: [{paths: [/a]}]}]"
    local json = loading.good '{"services": [{"name": "s", "host": "h", "routes": [{"paths": ["/a"]}]}]}'
    assert.same(yaml:list("routes"), json:list("routes"))
  end)
end)

describe("references to secrets", function()
  local text = "consumers: [{username: bob, keyauth_credentials: [{key: '{vault://env/%s}'}]}]"

  local function key(reference, environment, before)
    return only((before or "") .. text:format(reference), "keyauth_credentials", environment).key
  end

  it("take the environment's value, the name in capitals and underscores", function()
    assert.equal("v", key("MY_KEY", { MY_KEY = "v" }))
    assert.equal("v", key("my-key", { MY_KEY = "v" }))
  end)

  it("reach into a JSON object", function()
    assert.equal("b", key("creds/bob", { CREDS = '{"bob": "b"}' }))
  end)

  it("take a prefix from the reference or from a vault entity", function()
    assert.equal("v", key("key?prefix=APP_", { APP_KEY = "v" }))
    local loaded = loading.good([[
vaults: [{prefix: mine, name: env, config: {prefix: APP_}}]
services: [{name: s, host: "{vault://mine/host}"}]
]], { APP_HOST = "example.com" })
    assert.equal("example.com", loaded:list("services")[1].host)
  end)

  it("need no quotes", function()
    assert.equal("h.com", only("services: [{name: s, host: {vault://env/H}}]", "services", { H = "h.com" }).host)
  end)

  it("that lead nowhere are errors naming the variable", function()
    assert.equal('kong.yml:1: consumers[0].keyauth_credentials[0].key: expected the environment variable NO_KEY, '
      .. 'found nothing for "{vault://env/no-key}"', (loading.error(text:format("no-key"))))
    assert.matches('a field "al" in the JSON object of the environment variable CREDS',
      (loading.error(text:format("creds/al"), { CREDS = '{"bob": "b"}' })))
    assert.matches('a vault named "env"', (loading.error("services: [{host: '{vault://aws/x}'}]")))
  end)

  it("never show the value in an error", function()
    local line = loading.error("services: [{name: s, host: '{vault://env/H}'}]", { H = "my secret" })
    assert.matches("found \"{vault://env/H}\"", line, 1, true)
    assert.not_matches("my secret", line, 1, true)
  end)
end)
