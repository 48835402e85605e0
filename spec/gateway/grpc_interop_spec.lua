-- SPDX-License-Identifier: Apache-2.0
-- The gRPC project's interoperability cases: its own client and server, with the gateway between them.
local gateway = require "spec.support.gateway"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"

local BIN = ".cache/bin/"

-- All that the two implement; pick_first_unary wants to be told a server's name, which grpc-go's does not tell.
local CASES = { "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
  "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
  "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "rpc_soak",
  "channel_soak", "orca_per_rpc", "orca_oob" }

local PLAIN, SECURE = 1, 2 -- servers, in the order of their start

-- Load reports come to a balancer of the client that asks for them.
local ORCA = '{ "loadBalancingConfig": [ { "test_backend_metrics_load_balancer": {} } ] }'

describe("gRPC interoperability", function()
  local folder, made, servers, gw

  local function start_server(program, ...)
    servers[#servers + 1] = process.start({ BIN .. program, ... })
  end

  local function wait_for(port)
    process.wait_until(function()
      local socket = net.connect("127.0.0.1", port)
      if socket then socket:close() end
      return socket
    end, 10, "the server on port " .. port)
    return port
  end

  local function service(name, protocol, port, hosts, path)
    return { name = name, protocol = protocol, host = "127.0.0.1", port = port,
      routes = { { name = name, paths = { path or "/" }, protocols = { "grpc", "grpcs" }, strip_path = false,
        hosts = hosts } } }
  end

  setup(function()
    folder = posix.temporary_directory()
    servers = {}
    made = tls.make_certificate(folder, { name = "secure.test", names = { "gzip.test", "few.test" } })
    local plain, secure, gzip = process.free_port(), process.free_port(), process.free_port()
    start_server("grpc-interop-server", "-port", plain)
    start_server("grpc-interop-server", "-port", secure, "-use_tls", "-tls_cert_file", made.certificate,
      "-tls_key_file", made.key)
    start_server("grpc-compressed", "-serve", "-address", "127.0.0.1:" .. gzip)
    gw = gateway.start({
      _format_version = "3.0",
      services = {
        service("plain", "grpc", wait_for(plain), { "127.0.0.1" }), -- over cleartext a client names its address
        service("secure", "grpcs", wait_for(secure), { "secure.test" }),
        service("gzip", "grpc", wait_for(gzip), { "gzip.test" }),
        service("few", "grpc", plain, { "few.test" }, "/grpc.testing.TestService/"),
      },
      certificates = { { cert = made.certificate_pem, key = made.key_pem, snis = { { name = "*" } } } },
    }, { http2 = true })
  end)

  teardown(function()
    gw:stop()
    for _, server in ipairs(servers) do
      server:stop()
      server:forget()
    end
    process.remove(folder)
  end)

  local function passes(program, ...)
    local status, out, err = process.run({ BIN .. program, ... }, { seconds = 30 })
    assert(status == 0, ("exit status %s: %s%s%s"):format(tostring(status), out, err, gw:log()))
  end

  -- name: that of the server, over TLS; without one over cleartext.
  local function interop(case, name)
    local words = { "-server_host", "127.0.0.1", "-test_case", case, "-server_port", name and gw.tls_port or gw.port }
    if name then
      local secure = { "-use_tls", "-use_test_ca", "-ca_file", made.certificate, "-server_host_override", name }
      for _, word in ipairs(secure) do words[#words + 1] = word end
    end
    if case:find("^orca") then
      words[#words + 1] = "-service_config_json"
      words[#words + 1] = ORCA
    end
    -- Ten calls in a row, each within a second unless told: it is not how quick they are that matters here.
    if case:find("soak$") then words[#words + 1] = "-soak_per_iteration_max_acceptable_latency_ms=10000" end
    -- The client cancels, ends its side and looks whether it was cancelled or answered: no answer is to come before.
    local silent = case == "cancel_after_begin" and servers[name and SECURE or PLAIN]
    if silent then silent:hold() end
    local ok, why = pcall(passes, "grpc-interop-client", unpack(words))
    if silent then silent:go_on() end
    if not ok then error(why, 0) end
  end

  for _, case in ipairs(CASES) do
    it(case .. " over cleartext", function() interop(case) end)

    it(case .. " over TLS on both sides", function() interop(case, "secure.test") end)
  end

  it("unimplemented_service is the gateway's own answer where no route leads", function()
    interop("unimplemented_service", "few.test")
    interop("large_unary", "few.test")
  end)

  for _, case in ipairs { "unary", "streaming", "mixed" } do
    it("compressed messages, " .. case, function()
      passes("grpc-compressed", "-case", case, "-address", "127.0.0.1:" .. gw.tls_port, "-ca_file", made.certificate,
        "-name", "gzip.test")
    end)
  end
end)
