-- SPDX-License-Identifier: Apache-2.0
-- Every kind of mistake in a configuration, with the line that says it. Lines of the texts count from 1.
local loading = require "spec.lua.config.loading"

local CASES = {
  { "a syntax error", "services:\n- name: a\n  host: [x\n", 4, "YAML: while parsing a flow sequence" },
  { "a key that stands twice", "services:\n- name: a\n  host: h\n  name: b", 4, 'duplicate key "name"' },
  { "an unknown collection", "services: []\nruotes: []", 2, 'ruotes: unknown field, did you mean "routes"?' },
  { "a collection of Kong's that is not supported", "services: []\noauth2_credentials: [{ consumer: a }]", 2,
    "oauth2_credentials are not supported by this version" },
  { "an unknown field", "services:\n- name: a\n  host: h\n  prot: 80", 4,
    'service "a" (services[0]): prot: unknown field, did you mean "port"?' },
  { "a wrong type", "services:\n- name: a\n  host: h\n  port: eighty", 4,
    'service "a" (services[0]): port: expected an integer, found a string' },
  { "a list where a map should be", "services:\n- [a]", 2, "service (services[0]): expected a map, found a list" },
  { "a map where a list should be", "services:\n  name: a", 1, "services: expected a list, found a map" },
  { "a missing field, at its entity", "services:\n- name: a\n- name: b\n  host: h", 2,
    'service "a" (services[0]): host: expected a host name or an address (or url), found nothing' },
  { "a number out of range", "services:\n- host: h\n  name: a\n  retries: 40000", 4,
    "retries: expected an integer from 0 to 32767, found 40000" },
  { "a host with a port", "services:\n- name: a\n  host: h:80", 3,
    'host: expected a host name or an address, found "h:80"' },
  { "a url that is none", "services:\n- name: a\n  url: example.com", 3,
    'url: expected a URL such as http://host:port/path, found "example.com"' },
  { "UDP", "services:\n- name: a\n  host: h\n  protocol: udp", 4,
    "protocol: expected a protocol over TCP (this version does not carry UDP), found \"udp\"" },
  { "a path of a stream service", "services:\n- name: a\n  host: h\n  protocol: tcp\n  path: /a", 5,
    "path: expected nothing (because of protocol), found" },
  { "the PROXY protocol to a service of HTTP", "services:\n- name: a\n  host: h\n  proxy_protocol: v2", 4,
    "proxy_protocol: expected nothing (because of protocol), found" },
  { "a version of the PROXY protocol", "services:\n- name: a\n  host: h\n  protocol: tcp\n  proxy_protocol: v3", 5,
    'proxy_protocol: expected one of v1 or v2, found "v3"' },
  { "an unknown protocol", "services:\n- name: a\n  host: h\n  protocol: gopher", 4,
    "protocol: expected one of http, https, grpc, grpcs, http2, http2s, ws, wss, tcp, tls or tls_passthrough, found" },
  { "verification without TLS", "services:\n- name: a\n  host: h\n  tls_verify: true", 4,
    "tls_verify: expected nothing (because of protocol), found true" },
  { "a CA that is not there",
    "services:\n- url: https://h\n  ca_certificates:\n  - 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319", 4,
    "ca_certificates[0]: expected the id of a ca certificate in the configuration" },
  { "a path without a slash", "routes:\n- name: r\n  paths:\n  - /a\n  - b", 5,
    'route "r" (routes[0]): paths[1]: expected a path that starts with /, or a regular expression that starts' },
  { "an invalid regular expression", "routes:\n- name: r\n  paths: ['~/a(']", 3,
    "it does not compile: missing closing parenthesis at offset 3" },
  { "a host with two wildcards", "routes:\n- name: r\n  hosts: ['*.*.com']", 3, "only one * may stand in it" },
  { "a wildcard in the middle", "routes:\n- name: r\n  hosts: ['a.*.com']", 3,
    "the * must be the first or the last label" },
  { "a method in small letters", "routes:\n- name: r\n  methods: [get]", 3,
    'methods[0]: expected a method in capitals, found "get"' },
  { "the host header among headers", "routes:\n- name: r\n  headers: {Host: [a]}", 3, "headers.Host: expected" },
  { "a route that matches nothing", "routes:\n- name: q\n  paths: [/]\n- name: r", 4,
    "expected at least one of methods, hosts, headers, paths or snis (for protocols http and https), found none" },
  { "a route of streams that matches nothing", "routes:\n- name: q\n  paths: [/]\n- name: r\n  protocols: [tcp]", 4,
    "expected at least one of sources or destinations (for protocols tcp), found none" },
  { "passing TLS through without a name",
    "routes:\n- name: q\n  paths: [/]\n- name: r\n  protocols: [tls_passthrough]\n  destinations: [{port: 5}]", 4,
    "expected at least one of snis (for protocols tls_passthrough), found none" },
  { "a path of a stream",
    "routes:\n- name: r\n  protocols: [tcp]\n  destinations: [{port: 5}]\n  paths: [/]", 5,
    "paths: expected nothing for protocols tcp, found paths" },
  { "snis of plain TCP", "routes:\n- name: r\n  protocols: [tcp]\n  destinations: [{port: 5}]\n  snis: [a.b]", 5,
    "snis: expected nothing, or tls among protocols, found snis with tcp" },
  { "a destination that is neither", "routes:\n- name: r\n  protocols: [tcp]\n  destinations: [{}]", 4,
    "destinations[0]: expected at least one of ip or port" },
  { "an address that is none", "routes:\n- name: r\n  protocols: [tcp]\n  sources: [{ip: 10.0.0.0/40}]", 4,
    "sources[0].ip: expected" },
  { "a stream to a service of HTTP", "services:\n- name: s\n  url: http://h\n  routes:\n  - name: r\n"
    .. "    protocols: [tcp]\n    destinations: [{port: 5}]", 5,
    "service: expected a service with protocol tcp or tls (for protocols tcp), found one with protocol http" },
  { "a request to a service of streams",
    "services:\n- name: s\n  url: tcp://h:1\n  routes:\n  - name: r\n    paths: [/]", 5,
    "service: expected a service with protocol http, https, grpc or grpcs (for protocols http and https)" },
  { "TLS passed through into TLS", "services:\n- name: s\n  url: tls://h:1\n  routes:\n  - name: r\n"
    .. "    protocols: [tls_passthrough]\n    snis: [a.b]", 5, "service: expected a service with protocol tcp" },
  { "streams beside secure ones", "routes:\n- name: r\n  protocols: [tls_passthrough, tls]\n  snis: [a.b]", 3,
    'protocols: expected a list without "tls" beside "tls_passthrough"' },
  { "a plugin of HTTP on a stream", "routes:\n- name: r\n  protocols: [tcp]\n  destinations: [{port: 5}]\n"
    .. "  plugins:\n  - name: key-auth", 6,
    "name: expected a plugin for protocols tcp, found key-auth, which is for" },
  { "a plugin on a stream for something else", "routes:\n- name: r\n  protocols: [tcp]\n"
    .. "  destinations: [{port: 5}]\n  plugins:\n  - name: key-auth\n    protocols: [http]", 7,
    "protocols: expected tcp, as what the plugin is for, found http" },
  { "protocols that exclude each other", "routes:\n- name: r\n  paths: [/]\n  protocols: [http, grpc]", 4,
    'protocols: expected a list without "http" beside "grpc"' },
  { "snis without TLS", "routes:\n- name: r\n  protocols: [http]\n  paths: [/]\n  snis: [a.com]", 5,
    "snis: expected nothing, or https or grpcs among protocols, found snis with http" },
  { "sources of a route for HTTP", "routes:\n- name: r\n  paths: [/]\n  sources: [{ip: 10.0.0.1}]", 4,
    "sources: expected nothing for protocols http and https" },
  { "a redirect status that is none", "routes:\n- paths: [/]\n  https_redirect_status_code: 200", 3,
    "https_redirect_status_code: expected one of 426, 301, 302, 307 or 308, found 200" },
  { "an expression", "routes:\n- name: r\n  paths: [/]\n  expression: http.path == \"/\"", 4,
    "expression: expected nothing" },
  { "a reference that leads nowhere",
    "services:\n- name: orders\n  host: h\nroutes:\n- paths: [/]\n  service: ordes", 6,

    'service: expected the id or name of a service in the configuration, did you mean "orders"?, found "ordes"' },
  { "a reference in a nested entity", "services:\n- name: a\n  host: h\n  routes:\n  - paths: [/]\n    service: b", 6,
    'service: expected nothing (it is nested in that service), found "b"' },
  { "a name that stands twice", "services:\n- name: a\n  host: h\n- name: a\n  host: i", 4,
    'name: expected a value that no other service has, found "a", first at kong.yml:2' },
  { "an id that stands twice", "services:\n- id: 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319\n  host: h\n"
    .. "- host: i\n  id: 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319", 5, "first at kong.yml:2" },
  { "an id that is none", "services:\n- host: h\n  id: seven", 3, 'id: expected a UUID, found "seven"' },
  { "a key that two consumers have", "consumers:\n- username: a\n  keyauth_credentials: [{key: k}]\n- username: b\n"
    .. "  keyauth_credentials: [{key: k}]", 5,
    "key: expected a value that no other keyauth credential has, found a string, first at kong.yml:3" },
  { "a consumer without a name", "consumers:\n- tags: [a]", 2, "expected at least one of username or custom_id" },
  { "a credential without its key", "consumers:\n- username: a\n  keyauth_credentials:\n  - tags: [x]", 4,
    "key: expected a string, found nothing" },
  { "a JWT secret without a secret", "consumers:\n- username: a\n  jwt_secrets:\n  - key: k", 4,
    "secret: expected a value (because of algorithm)" },
  { "a user name that two credentials have", "consumers:\n- username: a\n  basicauth_credentials:\n"
    .. "  - {username: u, password: p}\n  - {username: u, password: q}", 5,
    'username: expected a value that no other basicauth credential has, found "u", first at kong.yml:4' },
  { "a password that is no hash where all are", "_transform: false\nconsumers:\n- username: a\n"
    .. "  basicauth_credentials:\n  - username: u\n    password: sesame", 6,
    "password: expected a hash (because of _transform: false)" },
  { "a password too long", "consumers:\n- username: a\n  basicauth_credentials:\n  - username: u\n    password: "
    .. ("x"):rep(512), 5, "password: expected a password of 1 to 511 bytes, none of them zero, found another text" },
  { "a password's hash that takes hours", "consumers:\n- username: a\n  basicauth_credentials:\n  - username: u\n"
    .. "    password: $2b$31$KBCwKxOzLha2MUDgW0PjXe5D9uuAp7I2O6z7376h1/7l92xku5xLG", 5,
    "password: expected a hash that takes at most a few seconds to compute, found a slower one" },
  { "a group that stands twice", "consumers:\n- username: a\n  acls:\n  - group: g\n  - group: g", 5,
    "expected one such acl, found another, first at kong.yml:4" },
  { "a membership that stands twice", "consumer_groups: [{name: g}]\nconsumers:\n- username: a\n  groups:\n"
    .. "  - name: g\n  - name: g", 6, "expected one such consumer group consumer, found another, first at kong.yml:5" },
  { "a group that nobody made", "consumers:\n- username: a\n  groups:\n  - name: g", 4,
    'consumer_group: expected the id or name of a consumer group in the configuration, found "g"' },
  { "a certificate's subject that two consumers have", "consumers:\n- username: a\n  mtls_auth_credentials:\n"
    .. "  - subject_name: s\n- username: b\n  mtls_auth_credentials:\n  - subject_name: s", 7,
    "expected one such mtls auth credential, found another, first at kong.yml:4" },
  { "a key's life that is no number", "consumers:\n- username: a\n  keyauth_credentials:\n  - key: k\n    ttl: x", 5,
    "ttl: expected an integer, found a string" },
  { "a target with a bad port", "upstreams:\n- name: u\n  targets:\n  - target: h:99999", 4,
    "target: expected a host name or an address, perhaps with a port" },
  { "a target that stands twice", "upstreams:\n- name: u\n  targets:\n  - target: h:80\n  - target: h:80", 5,
    "expected one such target, found another, first at kong.yml:4" },
  { "a weight out of range", "upstreams:\n- name: u\n  targets:\n  - target: h:80\n    weight: 70000", 5,
    "weight: expected an integer from 0 to 65535, found 70000" },
  { "hashing without what to hash", "upstreams:\n- name: u\n  hash_on: header", 2,
    "hash_on_header: expected a value (because of hash_on)" },
  { "a field deep within",
    "upstreams:\n- name: u\n  healthchecks:\n    active:\n      healthy:\n        interval: -1", 6,

    "healthchecks.active.healthy.interval: expected a number from 0 to 65535, found -1" },
  { "a certificate that is none", "ca_certificates:\n- cert: hello", 2, "cert: expected a certificate in PEM form" },
  { "an SNI without its certificate", "snis:\n- name: a.com\n  certificate: none", 3,
    "certificate: expected the id or name of a certificate" },
  { "a plugin that is not there", "plugins:\n- name: hallo", 2,
    'plugin "hallo" (plugins[0]): name: expected a plugin in nothing, did you mean "hello"?, found "hallo"' },
  { "an order that is none", "plugins:\n- name: hello\n  ordering:\n    before: key-auth", 4,
    "ordering.before: expected a list of plugin names, or a map of such lists by phase, such as { access: [key-auth] "
      .. "}, found a string" },
  { "an order in a phase that is none", "plugins:\n- name: hello\n  ordering:\n    after:\n      acess: [a]", 5,
    'ordering.after.acess: expected one of certificate, preread, rewrite, access, balancer, header_filter, '
      .. 'body_filter, response, log, ws_client_frame, ws_upstream_frame, service_head, '
      .. 'produce or consume, did you mean "access"?, found "acess"' },
  { "an order by what is no name", "plugins:\n- name: hello\n  ordering:\n    after:\n      access: [[x]]", 5,
    "ordering.after.access[0]: expected the name of a plugin, found a list" },
  { "a plugin without a name", "plugins:\n- config: {}", 2, "name: expected a string, found nothing" },
  { "a plugin's field of the wrong type", "plugins:\n- name: hello\n  config:\n    greeting: 7", 4,
    'plugin "hello" (plugins[0]): config.greeting: expected a string, found a number' },
  { "a plugin's unknown field", "plugins:\n- name: hello\n  config:\n    greetin: x", 4,
    'config.greetin: unknown field, did you mean "greeting"?' },
  { "a plugin twice on one route", "routes:\n- name: r\n  paths: [/]\nplugins:\n- {name: hello, route: r}\n"
    .. "- {name: hello, route: r}", 6, "expected one such plugin, found another, first at kong.yml:5" },
  { "a plugin twice on one route under two names", "routes:\n- name: r\n  paths: [/]\nplugins:\n"
    .. "- {name: hello, route: r, instance_name: a}\n- {name: hello, route: r, instance_name: b}", 6,
    "expected one such plugin, found another, first at kong.yml:5" },
  { "a plugin that consumers cannot have", "consumers:\n- username: a\n  plugins:\n  - name: key-auth", 4,
    "consumer: expected nothing: key-auth cannot be set for one consumer" },
  { "protocols that a plugin does not do", "plugins:\n- name: key-auth\n  protocols: [http, grpc]", 3,
    'protocols[1]: expected one of http or https, found "grpc"' },
  { "a shared configuration that is not there", "plugins:\n- name: hello\n  _config: x", 3,
    "_config: expected a name under _plugin_configs" },
  { "an unknown format", "_comment: x\n_format_version: '4.0'", 2,
    '_format_version: expected one of "1.1", "2.1" or "3.0", found "4.0"' },
  { "a format that is a number", "_format_version: 3.0", 1, 'expected one of "1.1", "2.1" or "3.0", found 3' },
  { "a setting of the gateway", "gateway:\n  limits:\n    max_headers: 0", 3,
    "gateway: limits.max_headers: expected an integer from 1 to 10000, found 0" },
}

describe("a configuration's error", function()
  for _, case in ipairs(CASES) do
    it("tells the line of " .. case[1], function()
      local line, err = loading.error(case[2])
      assert.equal(case[3], err.line)
      assert.matches(case[4], line, 1, true)
      assert.equal("kong.yml:" .. case[3] .. ": ", line:sub(1, #("kong.yml:" .. case[3] .. ": ")))
    end)
  end

  it("comes in JSON's places for JSON", function()
    local _, err = loading.error '{"services": [\n  {"name": "a",\n   "host": 5}]}'
    assert.same({ 3, 4, "services[0].host" }, { err.line, err.column, err.path })
  end)

  it("has file, line, column, path, entity, field, expected and found", function()
    local _, err = loading.error "services:\n- name: a\n  host: h\n  routes:\n  - name: r\n    paths: [/, x]"
    assert.same({ "kong.yml", 6, 16, "services[0].routes[0].paths[1]", 'route "r"', "paths[1]", '"x"' },
      { err.file, err.line, err.column, err.path, err.entity, err.field, err.found })
    assert.matches("^a path that starts with /", err.expected)
  end)

  it("does not hide the others: all are told, in the order of lines", function()
    local lines = loading.bad [[
services:
- name: a
  port: x
  retries: -1
  routes:
  - name: r
    strip_path: 5
routes:
- name: r
  paths: [b]
plugins:
- name: nothing
]]
    local numbers = {}
    for i, line in ipairs(lines) do numbers[i] = tonumber(line:match("^kong.yml:(%d+)")) end
    assert.same({ 2, 3, 4, 6, 7, 9, 10, 12 }, numbers)
  end)

  it("of an entity does not bring forth others about its references", function()
    assert.equal(1, #loading.bad "services: [{name: a, host: h, port: x, routes: [{paths: [/]}]}]")
  end)

  it("in what was merged is told where that was written", function()
    local _, err = loading.error "_ignore: [&base {host: h, port: x}]\nservices:\n- <<: *base\n  name: a"
    assert.equal(1, err.line)
  end)
end)
