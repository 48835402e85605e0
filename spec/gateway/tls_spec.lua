-- SPDX-License-Identifier: Apache-2.0
-- TLS on both sides of the gateway: certificates by SNI, sessions that outlive workers and reloads, services verified.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

describe("TLS", function()
  local folder, authority, made, up

  setup(function()
    folder = posix.temporary_directory()
    authority = tls.make_certificate(folder, { name = "Spec CA" })
    made = {
      a = tls.make_certificate(folder, { name = "a.test", ca = authority }),
      wild = tls.make_certificate(folder, { name = "*.wild.test", ca = authority }),
      other = tls.make_certificate(folder, { name = "other.test", ca = authority }),
      service = tls.make_certificate(folder, { name = "127.0.0.1", ca = authority }),
      client = tls.make_certificate(folder, { name = "gateway.test", ca = authority, client = true }),
    }
    up = upstream.start()
  end)
  teardown(function()
    up:stop()
    process.remove(folder)
  end)

  local function certificate(name, pair, ...)
    local snis = {}
    for i, sni in ipairs { ... } do snis[i] = { name = sni } end
    return { id = ("00000000-0000-4000-8000-%012d"):format(name), cert = pair.certificate_pem, key = pair.key_pem,
      snis = snis }
  end

  local function config(changes)
    local whole = { _format_version = "3.0", services = { { name = "up", url = up:url(),
      routes = { { name = "all", paths = { "/" } } } } } }
    for key, value in pairs(changes or {}) do whole[key] = value end
    return whole
  end

  describe("to clients", function()
    local gw

    setup(function()
      gw = gateway.start(config { certificates = { certificate(1, made.a, "a.test"),
        certificate(2, made.wild, "*.wild.test"), certificate(3, made.other, "*") } }, { workers = 2 })
    end)
    teardown(function() gw:stop() end)

    local function peer(name)
      local client = gw:connect({ tls = { name = name } })
      local subject = tls.info(client.socket).peer
      client:close()
      return subject
    end

    it("presents the certificate that SNI asks for, and that of * to the rest", function()
      assert.equal("/CN=a.test", peer("a.test"))
      assert.equal("/CN=a.test", peer("A.TEST"))
      assert.equal("/CN=*.wild.test", peer("x.wild.test"))
      assert.equal("/CN=other.test", peer("x.y.wild.test"))
      assert.equal("/CN=other.test", peer(nil))
    end)

    it("can be verified, and speaks TLS 1.2 and 1.3, but nothing older", function()
      for _, version in ipairs { "1.2", "1.3" } do
        local client = gw:connect({ tls = { name = "a.test", ca = authority.certificate, min_version = version,
          max_version = version, alpn = { "http/1.1" } } })
        local agreed = tls.info(client.socket)
        assert.same({ "TLSv" .. version, "http/1.1" }, { agreed.version, agreed.alpn })
        assert.equal(200, client:request({ path = "/" }).status)
        client:close()
      end
      assert.has_error(function() gw:connect({ tls = { name = "a.test", max_version = "1.1" } }) end)
    end)

    it("resumes sessions, whichever worker gets the connection", function()
      local first = gw:connect({ tls = { name = "a.test", max_version = "1.2" } })
      assert.equal(200, first:request({ path = "/" }).status)
      local session = tls.session(first.socket)
      first:close()
      for _ = 1, 8 do
        local client = gw:connect({ tls = { name = "a.test", max_version = "1.2", session = session } })
        assert.is_true(tls.info(client.socket).resumed)
        client:close()
      end
    end)

    it("presents a changed certificate after a reload, and keeps the connections of before", function()
      local before = gw:connect({ tls = { name = "a.test" } })
      assert.equal(200, before:request({ path = "/" }).status)
      gw:write_config(config { certificates = { certificate(1, made.other, "a.test"),
        certificate(3, made.wild, "*") } })
      assert.equal(0, (gw:command("reload"))) -- in both workers
      assert.equal("/CN=other.test", peer("a.test"))
      assert.equal(200, before:request({ path = "/" }).status)
      before:close()
    end)

    it("says what is wrong with a certificate of the configuration, and goes on with the old one", function()
      local serving = peer("unknown.test")
      local broken = certificate(4, made.a, "b.test")
      broken.key = made.other.key_pem
      gw:write_config(config { certificates = { broken } })
      gw:wait_log("belong")
      assert.equal(serving, peer("unknown.test"))
    end)
  end)

  it("has a certificate for clients where none is configured", function()
    local gw = gateway.start(config())
    local client = gw:connect({ tls = {} })
    assert.equal("/CN=localhost", tls.info(client.socket).peer)
    assert.equal(200, client:request({ path = "/" }).status)
    client:close()
    gw:stop()
  end)

  describe("to services", function()
    local secure, gw

    setup(function()
      secure = upstream.start(nil, { tls = { certificate = made.service.certificate, key = made.service.key,
        ca = authority.certificate, client_certificate = made.client.certificate, client_key = made.client.key } })
      local strict = upstream.start(nil, { tls = { certificate = made.a.certificate, key = made.a.key } })
      local ca, pair = "00000000-0000-4000-8000-000000000009", certificate(5, made.client)
      local function service(name, changes)
        local whole = { name = name, url = secure:url(), retries = 0, routes = { { paths = { "/" .. name .. "/" } } } }
        for key, value in pairs(changes) do whole[key] = value end
        return whole
      end
      secure.strict = strict
      gw = gateway.start({ _format_version = "3.0",
        ca_certificates = { { id = ca, cert = authority.certificate_pem } }, certificates = { pair },
        services = {
          service("known", { tls_verify = true, ca_certificates = { ca }, client_certificate = pair.id }),
          service("unverified", { tls_verify = false, client_certificate = pair.id }),
          service("anonymous", { tls_verify = true, ca_certificates = { ca } }),
          service("untrusted", { tls_verify = true, client_certificate = pair.id }),
          service("misnamed", { tls_verify = true, ca_certificates = { ca }, url = strict:url() }),
        } })
    end)
    teardown(function()
      gw:stop()
      secure.strict:stop()
      secure:stop()
    end)

    it("verifies them and shows its own certificate, over connections that are kept", function()
      local first = cjson.decode(gw:get("/known/").body)
      assert.equal("/CN=gateway.test", first.tls.peer)
      assert.equal(first.connection, cjson.decode(gw:get("/known/").body).connection)
    end)

    it("does not verify them where it is told not to", function()
      assert.equal(200, gw:get("/unverified/").status)
    end)

    for name, reason in pairs { untrusted = "certificate verify failed", misnamed = "IP address mismatch" } do
      it("refuses one that is " .. name .. ", and says why in the log", function()
        assert.equal(502, gw:get("/" .. name .. "/").status)
        gw:wait_log(reason)
      end)
    end

    it("answers 502 when the service wants a certificate that it has not got", function()
      assert.equal(502, gw:get("/anonymous/").status)
    end)
  end)

  describe("by plugins", function()
    local secure, long, gw

    -- What the plugin below is to do comes in the fields of the request, and the server name of a greeting.
    local CODE = [[
local own = { version = "1.0.0", priority = 10 }
function own.certificate(_, exchange)
  local tls, name = exchange.client.tls, exchange.client.tls:get_server_name()
  if name == "ask.test" then assert(tls:request_client_certificate()) end
  if name == "fresh.test" then assert(tls:disable_session_reuse()) end
end
function own.access(_, exchange)
  local request, service = exchange.request, exchange.service
  local client_certificate = exchange.client.tls:get_full_client_certificate_chain()
  exchange.response:set_header("X-Client", client_certificate and "certificate" or "none")
  local certificate, key = request:get_header("X-Certificate"), request:get_header("X-Key")
  if certificate then
    local ok, err = service:set_tls_cert_key((certificate:gsub("|", "\n")), (key:gsub("|", "\n")))
    if not ok then return exchange.response:exit(400, err) end
  end
  local depth = request:get_header("X-Depth")
  if depth then
    service:set_tls_verify(true)
    service:set_tls_verify_depth(tonumber(depth))
  end
end
return own
]]

    setup(function()
      secure = upstream.start(nil, { tls = { certificate = made.service.certificate, key = made.service.key,
        ca = authority.certificate, client_certificate = made.client.certificate, client_key = made.client.key } })
      local middle = tls.make_certificate(folder, { name = "Middle CA", ca = authority, authority = true })
      local leaf = tls.make_certificate(folder, { name = "127.0.0.1", ca = middle })
      process.write_file(leaf.certificate, leaf.certificate_pem .. middle.certificate_pem)
      long = upstream.start(nil, { tls = { certificate = leaf.certificate, key = leaf.key } })
      local ca = "00000000-0000-4000-8000-000000000009"
      gw = gateway.start({ _format_version = "3.0", plugins = { { name = "own" } },
        ca_certificates = { { id = ca, cert = authority.certificate_pem } },
        services = { { name = "secure", url = secure:url(), retries = 0, tls_verify = true, ca_certificates = { ca },
          routes = { { paths = { "/secure" } } } },
          { name = "long", url = long:url(), retries = 0, tls_verify = true, ca_certificates = { ca },
            routes = { { paths = { "/long" } } } },
          { name = "short", url = long:url(), retries = 0, tls_verify = true, ca_certificates = { ca },
            tls_verify_depth = 0, routes = { { paths = { "/short" } } } },
          { name = "up", url = up:url(), routes = { { paths = { "/" } } } } },
      }, { plugins = { own = CODE } })
    end)
    teardown(function()
      gw:stop()
      long:stop()
      secure:stop()
    end)

    local function one_line(text)
      return (text:gsub("\n", "|"))
    end

    it("the gateway shows a certificate of the plugin's own to a service", function()
      assert.equal(502, gw:get("/secure").status)
      local fields = { ["X-Certificate"] = one_line(made.client.certificate_pem),
        ["X-Key"] = one_line(made.client.key_pem) }
      for _ = 1, 2 do
        local response = gw:get("/secure", fields)
        assert.equal(200, response.status)
        assert.equal("/CN=gateway.test", cjson.decode(response.body).tls.peer)
      end
      assert.equal(502, gw:get("/secure").status)
      fields["X-Key"] = one_line(made.a.key_pem)
      local refused = gw:get("/secure", fields)
      assert.equal(400, refused.status)
      assert.matches("key", refused.body)
    end)

    it("a service's chain may be as long as the plugin says", function()
      local function answer(depth)
        return gw:get("/long", depth and { ["X-Depth"] = depth }).status
      end
      assert.same({ 200, 502, 200, 502 }, { answer(), answer("0"), answer("1"), answer("0") })
      assert.equal(502, gw:get("/short").status)
    end)

    it("a client is asked for a certificate, and may have none", function()
      local function told(options)
        local client = gw:connect({ tls = options })
        local response = client:request({ path = "/" })
        client:close()
        return response.headers["x-client"]
      end
      local pair = { certificate = made.client.certificate, key = made.client.key }
      assert.equal("certificate", told({ name = "ask.test", certificate = pair.certificate, key = pair.key }))
      assert.equal("none", told({ name = "ask.test" }))
      assert.equal("none", told({ name = "quiet.test", certificate = pair.certificate, key = pair.key }))
    end)

    it("a client gets nothing to resume its session by", function()
      local function resumed(name)
        local context = tls.context({ max_version = "1.2" })
        local client = gw:connect({ tls = { name = name, context = context } })
        client:request({ path = "/" })
        local session = tls.session(client.socket)
        client:close()
        local again = gw:connect({ tls = { name = name, context = context, session = session } })
        local info = tls.info(again.socket)
        again:close()
        tls.free(context)
        return info.resumed
      end
      assert.is_true(resumed("quiet.test"))
      assert.is_false(resumed("fresh.test"))
    end)
  end)
end)
