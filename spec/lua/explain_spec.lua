-- SPDX-License-Identifier: Apache-2.0
-- `sluice explain`: what it says of a request, and that it says what the router does.
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
require "sluice.spec" -- conditions of plugins are compiled, which takes the core

core.load("router.h", "uri.h", "stream_router.h")

local handler = [[
local hello = { version = "1.2.0", priority = 10 }
function hello.access(conf, exchange) end
return hello
]]

local late = [[
local late = { version = "0.1.0", priority = 5 }
function late.access(conf, exchange) end
function late.log(conf, exchange) end
return late
]]

local schema = [[
return { greeting = { type = "string", default = "hello" }, token = { type = "string", encrypted = true } }
]]

local configuration = [[
_format_version: "3.0"
gateway: { plugin_dirs: ["%s"] }
services:
  - name: users
    url: http://users/api
    routes:
      - name: one-user
        paths: ["~/users/(?<id>\\d+)$"]
        hosts: ["*.example"]
        methods: [GET]
        plugins:
          - { name: hello, config: { token: s3cret } }
          - { name: late, when: 'http.method == "GET"' }
      - { name: all-users, paths: [/users] }
      - { name: remove-user, paths: [/users], methods: [DELETE] }
      - name: beta
        paths: [/users]
        headers: { X-Beta: ["1", "yes"] }
        preserve_host: true
        plugins:
          - { name: late, tags: [audit, new], ordering: { before: { access: [hello] }, after: [watch] } }
          - { name: hello, enabled: false, consumer: alice }
          - { name: hello, config: { greeting: beta } }
          - { name: watch, protocols: [tcp] }
      - { name: admin, paths: [/Admin/] }
      - { name: secure, paths: [/secure], protocols: [https] }
  - name: gone
    url: http://gone.test
    enabled: false
    routes: [{ name: gone, paths: [/users/7/gone], methods: [GET] }]
  - name: greeter
    url: grpc://greeter.test:9000
    routes: [{ name: greeter, protocols: [grpc], paths: [/greet.Greeter/SayHello] }]
  - name: database
    host: users
    protocol: tcp
    proxy_protocol: v2
    routes:
      - name: raw
        protocols: [tcp]
        sources: [{ ip: 192.168.0.0/16 }]
        destinations: [{ port: 9000 }]
        plugins: [{ name: watch }]
      - { name: any, protocols: [tls], destinations: [{ port: 9443 }] }
  - name: through
    url: tcp://10.0.0.9:443
    routes: [{ name: pass, protocols: [tls_passthrough], snis: [a.test] }]
upstreams:
  - name: users
    targets: [{ target: "10.0.0.1:8080", weight: 10 }]
plugins:
  - { name: hello, config: { greeting: ahoy } }
consumers:
  - username: alice
    custom_id: a-1
    plugins: [{ name: hello, config: { greeting: hi alice } }, { name: late }]
  - username: bob
    groups: [{ name: iron }, { name: gold }]
  - username: carol
consumer_groups:
  - name: gold
    plugins: [{ name: hello, config: { greeting: hi gold } }]
  - name: iron
]]

describe("sluice explain", function()
  local config, entities, explain, folder, known

  setup(function()
    config = require "sluice.config"
    entities = require "sluice.cli.explain.entities"
    explain = require "sluice.cli.explain"
    folder = posix.temporary_directory()
    os.execute(("mkdir -p '%s/hello' '%s/late' '%s/watch'"):format(folder, folder, folder))
    process.write_file(folder .. "/hello/handler.lua", handler)
    process.write_file(folder .. "/hello/schema.lua", schema)
    process.write_file(folder .. "/late/handler.lua", late)
    process.write_file(folder .. "/watch/handler.lua",
      "return { version = '1', priority = 7, preread = function() end, log = function() end }")
    local loaded, errors = config.of_text(configuration:format(folder))
    assert(loaded, errors and errors[1] and errors[1].text)
    known = entities.of_configuration(loaded, "a text")
  end)

  teardown(function() os.execute(("rm -rf '%s'"):format(folder)) end)

  local function ask(method, url, fields)
    return explain.text(known, method, url, fields)
  end

  local function says(text, ...)
    for _, phrase in ipairs { ... } do
      assert.is_truthy(text:find(phrase, 1, true), ("expected %q in:\n%s"):format(phrase, text))
    end
  end

  it("names the route, what fits of it, and the captures", function()
    local text, found = ask("GET", "http://a.example/users/42")
    assert.is_true(found)
    says(text, "route     one-user", "methods  GET", "a.example fits *.example",
      "regex ~/users/(?<id>\\d+)$; captures id = 42", "headers  not asked for")
  end)

  it("shows the condition of a plugin", function()
    says(ask("GET", "http://a.example/users/42"), [[only when http.method == "GET"]])
  end)

  it("shows the canonical path where it differs", function()
    says(ask("GET", "http://a.example//x/../users/%34%32"), "is matched and forwarded as /users/42", "one-user")
  end)

  it("says why a route that fits comes later", function()
    says(ask("GET", "http://a.example/users/42"), "all-users: it asks for fewer attributes (1, not 3)")
  end)

  it("tells near misses with what was wanted and what was found", function()
    local text = ask("GET", "/users/x")
    says(text, "route     all-users", "remove-user: method: wants DELETE, found GET", "beta: header:",
      "x-beta does not fit")
    says(ask("GET", "/admin"), "admin: path: wants /Admin/, found /admin")
  end)

  it("gives 404 its near misses and no plugins", function()
    local text, found = ask("GET", "/nothing")
    assert.is_false(found)
    says(text, "no route takes it: answered 404")
    assert.is_nil(text:find("plugins", 1, true))
  end)

  it("lists plugins in their order, with the configuration that applies, secrets hidden", function()
    local text = ask("GET", "http://a.example/users/42")
    says(text, "1. hello 1.2.0  priority 10  in access", "of route one-user", 'greeting = "hello"',
      'token = "(hidden)"', "of consumer alice", 'greeting = "hi alice"', "2. late 0.1.0  priority 5  in access, log")
    assert.is_nil(text:find("s3cret", 1, true))
    assert.is_nil(text:find("ahoy", 1, true))
    says(ask("GET", "/users"), "of all routes", 'greeting = "ahoy"')
  end)

  it("tells what stands at the route and does not run, and why", function()
    says(ask("GET", "/users", { "X-Beta: 1" }), "plugins that stand here and do not run\n",
      "  hello of all routes: more specific ones take its place\n",
      "  hello of route beta and consumer alice: it is disabled\n", "  watch of route beta: it is for tcp\n")
    assert.is_nil(ask("GET", "/users"):find("do not run", 1, true))
  end)

  it("shows orders and tags", function()
    says(ask("GET", "/users", { "X-Beta: 1" }), "  1. late", "  2. hello",
      "       ordered before hello in access\n       ordered after watch\n       tags audit, new\n")
  end)

  describe("for a consumer", function()
    -- The lines of one plugin's scopes.
    local function scopes(consumer, url)
      local text = assert(explain.text(known, "GET", url or "/users", nil, consumer))
      local lines = {}
      for line in text:match("1%. hello.-\n(.-)\n   2%."):gmatch("[^\n]+") do
        if line:find("^     %S") then lines[#lines + 1] = line:sub(6) end
      end
      return lines, text
    end

    it("tells in which order its instances are looked for, and which one runs", function()
      assert.same({ "of consumer alice  <- runs", "of consumer group gold", "of all routes" }, (scopes "alice"))
      local lines, text = scopes "bob"
      assert.same({ "of consumer alice", "of consumer group gold  <- runs", "of all routes" }, lines)
      says(text, "consumer  bob, of the groups gold, iron")
      assert.same({ "of consumer alice", "of consumer group gold", "of all routes  <- runs" }, (scopes "carol"))
      assert.same({ "of consumer alice", "of consumer group gold", "of route one-user  <- runs" },
        (scopes("carol", "http://a.example/users/42")))
    end)

    it("without one, says that the first that applies runs", function()
      assert.same({ "once, as the first of these that applies to the consumer (--consumer NAME tells which)",
        "of consumer alice", "of consumer group gold", "of all routes" }, (scopes(nil)))
    end)

    it("says when a plugin does not run for it", function()
      local _, text = scopes "carol"
      says(text, "does not run for this consumer\n     of consumer alice")
      says(select(2, scopes "alice"), "late 0.1.0  priority 5  in access, log\n     of consumer alice  <- runs")
    end)

    it("is found by any of its names", function()
      assert.same((scopes "alice"), (scopes "a-1"))
      local _, why = explain.text(known, "GET", "/users", nil, "alicia")
      assert.equal('there is no consumer alicia, did you mean "alice"?', why)
    end)
  end)

  it("gives the upstream with the final URL, the Host sent and the targets", function()
    says(ask("GET", "/users/x?y=1"), "GET http://users/api/x?y=1", "Host: users", "10.0.0.1:8080  weight 10")
    says(ask("GET", "http://Shop.test:81/users/x", { "X-Beta: YES" }), "route     beta", "Host: shop.test:81")
  end)

  it("tells what goes over HTTP/2", function()
    says(ask("POST", "/greet.Greeter/SayHello", { "Content-Type: application/grpc" }),
      "POST http://greeter.test:9000/greet.Greeter/SayHello  over HTTP/2", "over HTTP/1.1 it is answered 426")
  end)

  it("tells that a route for gRPC takes nothing else", function()
    says(ask("GET", "/greet.Greeter/SayHello"), "answered 415: it takes gRPC alone")
  end)

  it("tells when only TLS is missing", function()
    says(ask("GET", "http://a.test/secure"), "route     secure", "answered 426")
    says(ask("GET", "https://a.test/secure"), "service   users")
  end)

  it("passes over routes of a disabled service", function()
    says(ask("GET", "/users/7/gone"), "route     all-users", "of 7 routes")
  end)

  describe("of a stream", function()
    local stream = require "sluice.cli.explain.stream"

    local function tell(...)
      local text, found = stream.text(known, ...)
      return text, found
    end

    it("names the route, what it asks for, its plugins and where it goes", function()
      local text, found = tell("tcp", "127.0.0.1:9000", "192.168.1.5")
      assert.is_true(found)
      says(text, "tcp 127.0.0.1:9000 from 192.168.1.5", "of 3 routes of streams", "route     raw",
        "sources      among 192.168.0.0/16", "destinations among any address port 9000", "snis         not asked for",
        "1. watch 1  priority 7  in preread, log (stream)", "service   database", "behind a PROXY header, v2",
        "10.0.0.1:8080  weight 10")
    end)

    it("tells by server name what is passed through", function()
      says(tell("TLS", "A.test:9443"), "route     pass", "TLS is passed through", "tcp://10.0.0.9:443")
      says(tell("tls", "b.test:9443"), "route     any", "service   database")
    end)

    it("says when there is none, and what it cannot read", function()
      local text, found = tell("tcp", "127.0.0.1:9000", "10.0.0.1")
      assert.is_false(found)
      says(text, "no route takes it: it is closed")
      assert.equal("expected HOST:PORT, found nope:x", select(2, tell("tcp", "nope:x")))
      assert.equal("expected an address behind --from, found example.com",
        select(2, tell("tcp", "a:1", "example.com")))
    end)
  end)

  it("says why the gateway would refuse the request", function()
    local _, err = ask("GET", "/users/%00")
    assert.matches("/users/%%00 is refused with 400", err)
    _, err = ask("GET", "http://a b/")
    assert.is_string(err)
    _, err = ask("GET", "/users", { "no colon" })
    assert.equal("expected NAME: VALUE after -H, found no colon", err)
  end)
end)
