-- SPDX-License-Identifier: Apache-2.0
-- JSON in, Avro, Protobuf and JSON Schema in the topics, JSON out, through a whole gateway and a schema registry behind
-- TLS that asks for a login.
local cjson = require "cjson"
local events = require "spec.kafka.events"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

-- Over there: one registry for the life of the process.
local function serve(request, connection)
  if not _G.schema_registry then
    package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
    dofile "lua/sluice/iterate.lua"
    _G.schema_registry = require("spec.support.schema_registry").new { basic = "gateway:secret" }
    _G.schema_registry:add("avro-value", { text = [[{"type":"record","name":"Order","fields":[
      {"name":"id","type":"long"},{"name":"note","type":["null","string"],"default":null},
      {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}]] })
    _G.schema_registry:add("proto-value", { type = "PROTOBUF",
      text = 'syntax = "proto3"; message Order { int64 id = 1; string note = 2; }' })
    _G.schema_registry:add("json-value", { type = "JSON",
      text = '{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}' })
  end
  connection:read_body()
  local answer = _G.schema_registry:handle { method = request.method, path = request.target:match("^[^?]*"),
    headers = request.headers, body = request.body }
  connection:respond(answer.status, answer.headers, answer.body)
end

local CONFIG = [[
_format_version: "3.0"
gateway: { kafka: { main: { embedded: true } } }
routes:
%s]]

local ROUTES = [[
- { name: in-NAME, paths: [/in/NAME], plugins: [{ name: kafka-upstream, config: { topic: NAME, value: body,
    schema_registry: { confluent: { url: "https://localhost:PORT", authentication: AUTH } } } }] }
- { name: out-NAME, paths: [/out/NAME], plugins: [{ name: kafka-consume, config: { topics: [{ name: NAME }],
    mode: server-sent-events, auto_offset_reset: earliest,
    schema_registry: { confluent: { url: "https://localhost:PORT", authentication: AUTH } } } }] }
]]
local AUTH = "{ mode: basic, basic: { username: gateway, password: secret } }"

describe("records with schemas", function()
  local gw, registry

  setup(function()
    local made = tls.make_certificate(posix.temporary_directory(), { name = "localhost" })
    registry = upstream.start(serve, { tls = { certificate = made.certificate, key = made.key } })
    local routes = {}
    for _, name in ipairs { "avro", "proto", "json" } do
      routes[#routes + 1] = ROUTES:gsub("%u+", { NAME = name, PORT = registry.port, AUTH = AUTH })
    end
    gw = gateway.start(CONFIG:format(table.concat(routes)), { workers = 2, env = { SSL_CERT_FILE = made.certificate } })
  end)

  teardown(function()
    if gw then gw:stop() end
    if registry then registry:stop() end
  end)

  local function post(name, value)
    local response = gw:request { path = "/in/" .. name, body = cjson.encode(value) }
    return response.status, cjson.decode(response.body)
  end

  local function read_back(name)
    local stream = assert(events.open(gw.port, "/out/" .. name))
    local event = assert(stream:next())
    stream:close()
    return cjson.decode(event.data)
  end

  it("go through Avro", function()
    assert.equal(200, (post("avro", { id = 7, at = "2026-03-01T08:15:00.250Z" })))
    assert.same({ id = 7, at = "2026-03-01T08:15:00.250Z", note = cjson.null }, read_back("avro"))
  end)

  it("go through Protobuf", function()
    assert.equal(200, (post("proto", { id = "9007199254740993", note = "a" })))
    assert.same({ id = "9007199254740993", note = "a" }, read_back("proto"))
  end)

  it("are checked by JSON Schema", function()
    assert.equal(200, (post("json", { id = 7, more = true })))
    assert.same({ id = 7, more = true }, read_back("json"))
  end)

  it("that do not fit are refused with the place", function()
    for _, name in ipairs { "avro", "proto", "json" } do
      local status, answer = post(name, { id = {} })
      assert.same({ 422, "/id" }, { status, answer.path }, name .. ": " .. tostring(answer.error))
    end
  end)
end)
