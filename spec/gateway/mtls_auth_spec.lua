-- SPDX-License-Identifier: Apache-2.0
-- mtls-auth against real handshakes: whose certificate a client has shown, over TLS 1.2 and 1.3, in resumed sessions
-- and over HTTP/2; and what issuers say about certificates that they have revoked.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http2 = require "spec.support.http2"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local relay = require "spec.support.relay"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

local CA, OTHER_CA = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
local MIDDLE_CA = "00000000-0000-4000-8000-000000000003"
local MISSING, FAILED = "No required TLS certificate was sent", "TLS certificate failed verification"

describe("mtls-auth", function()
  local folder, authority, other, middle, made, up

  local function openssl(...)
    local status, output, err = process.run({ "openssl", ... }, { cwd = folder })
    assert(status == 0, err)
    return output
  end

  -- A certificate of the authority with more to it: lines of -addext.
  local function special(name, subject, ...)
    local path = folder .. "/" .. name
    local command = { "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
      path .. ".key", "-out", path .. ".crt", "-subj", subject, "-CA", authority.certificate, "-CAkey", authority.key,
      "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth" }
    for _, line in ipairs { ... } do
      command[#command + 1] = "-addext"
      command[#command + 1] = line
    end
    openssl(unpack(command))
    return { certificate = path .. ".crt", key = path .. ".key", certificate_pem = process.read_file(path .. ".crt") }
  end

  setup(function()
    folder = posix.temporary_directory()
    authority = tls.make_certificate(folder, { name = "Spec CA" })
    other = tls.make_certificate(folder, { name = "Other CA" })
    middle = tls.make_certificate(folder, { name = "Middle CA", ca = authority, authority = true })
    made = {}
    for _, name in ipairs { "alice", "bob", "stranger" } do
      made[name] = tls.make_certificate(folder, { name = name, ca = authority, client = true })
    end
    made.untrusted = tls.make_certificate(folder, { name = "alice.untrusted", ca = other, client = true })
    made.server = tls.make_certificate(folder, { name = "localhost", ca = authority })
    made.deep = tls.make_certificate(folder, { name = "deep", ca = middle, client = true })
    made.whole = { certificate = folder .. "/whole.crt", key = made.deep.key }
    process.write_file(made.whole.certificate, made.deep.certificate_pem .. middle.certificate_pem)
    up = upstream.start()
  end)
  teardown(function()
    up:stop()
    process.remove(folder)
  end)

  local CONSUMERS = { { username = "alice" }, { username = "deep" }, { username = "robert", custom_id = "bob" },
    { username = "nobody" } }

  local function config(conf, changes)
    conf.ca_certificates = conf.ca_certificates or { CA }
    conf.revocation_check_mode = conf.revocation_check_mode or "SKIP"
    local whole = { _format_version = "3.0", consumers = CONSUMERS,
      ca_certificates = { { id = CA, cert = authority.certificate_pem },
        { id = OTHER_CA, cert = other.certificate_pem },
        { id = MIDDLE_CA, cert = middle.certificate_pem } },
      certificates = { { cert = made.server.certificate_pem, key = made.server.key_pem, snis = { { name = "*" } } } },
      services = { { name = "up", url = up:url(), routes = { { name = "all", paths = { "/" } } } } },
      plugins = { { name = "mtls-auth", config = conf } } }
    for key, value in pairs(changes or {}) do whole[key] = value end
    return whole
  end

  local gw

  local function start(conf, changes, options)
    if gw then gw:stop() end
    gw = gateway.start(config(conf, changes), options)
  end
  after_each(function()
    if gw then gw:stop() end
    gw = nil
  end)

  local function options_of(pair, more)
    local options = { name = "localhost" }
    if pair then options.certificate, options.key = pair.certificate, pair.key end
    for name, value in pairs(more or {}) do options[name] = value end
    return options
  end

  -- A request with a certificate: its response, and the fields that the service saw.
  local function ask(pair, more, request)
    local client = gw:connect({ tls = options_of(pair, more) })
    local response = assert(client:request(request or { path = "/" }))
    client:close()
    local seen = response.status == 200 and cjson.decode(response.body).headers or {}
    return response, seen
  end

  local function user(pair, more)
    local _, seen = ask(pair, more)
    return seen["x-consumer-username"]
  end

  local function assert_refused(message, response)
    assert.same({ 401, message }, { response.status, cjson.decode(response.body).message })
  end

  it("lets clients with a good certificate pass as the consumer that it names", function()
    start {}
    for _, version in ipairs { "1.2", "1.3" } do
      local more = { min_version = version, max_version = version }
      assert.equal("alice", user(made.alice, more))
      assert.equal("robert", user(made.bob, more))
      assert_refused(MISSING, (ask(nil, more)))
      assert_refused(FAILED, (ask(made.untrusted, more)))
      assert_refused(FAILED, (ask(made.stranger, more)))
    end
    assert_refused(MISSING, gw:get("/"))
  end)

  it("knows clients again in resumed sessions, whichever worker gets the connection", function()
    start({}, nil, { workers = 2 })
    for _, version in ipairs { "1.2", "1.3" } do
      for name, pair in pairs { alice = made.alice, deep = made.whole } do
        local first = gw:connect({ tls = options_of(pair, { max_version = version }) })
        assert.equal(200, first:request({ path = "/" }).status)
        local session = tls.session(first.socket)
        first:close()
        for _ = 1, 8 do
          local client = gw:connect({ tls = options_of(pair, { max_version = version, session = session }) })
          local response = client:request({ path = "/" })
          assert.is_true(tls.info(client.socket).resumed)
          session = tls.session(client.socket)
          client:close()
          assert.equal(200, response.status)
          assert.equal(name, cjson.decode(response.body).headers["x-consumer-username"])
        end
      end
    end
  end)

  it("knows clients over HTTP/2, each request by itself", function()
    start({}, nil, { http2 = true })
    for name, expected in pairs { alice = 200, stranger = 401 } do
      local client = http2.connect(gw.tls_port, { tls = options_of(made[name]) })
      for _ = 1, 3 do assert.equal(expected, client:wait(client:request({ path = "/" })).status) end
      client:close()
    end
  end)

  it("takes chains that clients send, and with allow_partial_chain authorities in the middle", function()
    start {}
    assert.equal("deep", user(made.whole))
    start { ca_certificates = { OTHER_CA } }
    assert_refused(FAILED, (ask(made.whole)))
    start { ca_certificates = { MIDDLE_CA } }
    assert_refused(FAILED, (ask(made.deep)))
    start { ca_certificates = { MIDDLE_CA }, allow_partial_chain = true }
    assert.equal("deep", user(made.deep))
    assert_refused(FAILED, (ask(made.alice)))
  end)

  describe("finds the consumer", function()
    it("by what consumer_by names", function()
      start { consumer_by = { "custom_id" } }
      assert.equal("robert", user(made.bob))
      assert_refused(FAILED, (ask(made.alice)))
      start { consumer_by = setmetatable({}, cjson.array_mt) }
      assert_refused(FAILED, (ask(made.bob)))
    end)

    it("by alternative names before the common name", function()
      local pair = special("names", "/CN=alice", "subjectAltName=DNS:x.test,email:bob")
      start {}
      assert.equal("robert", user(pair))
    end)

    it("by mtls_auth_credentials, those for the authority before those for any", function()
      start({}, { consumers = { { username = "alice" },
        { username = "for-any", mtls_auth_credentials = { { subject_name = "stranger", id = CA },
          { subject_name = "alice" } } },
        { username = "for-ca", mtls_auth_credentials = { { subject_name = "stranger",
          ca_certificate = { id = CA } } } },
        { username = "for-other", mtls_auth_credentials = { { subject_name = "bob",
          ca_certificate = { id = OTHER_CA } } } } } })
      assert.equal("for-ca", user(made.stranger))
      assert.equal("for-any", user(made.alice))
      assert_refused(FAILED, (ask(made.bob)))
    end)

    it("or takes default_consumer for those that nobody is", function()
      start { default_consumer = "nobody" }
      assert.equal("nobody", user(made.stranger))
      assert.equal("alice", user(made.alice))
      assert_refused(FAILED, (ask(made.untrusted)))
    end)

    it("or anonymous, whatever is wrong", function()
      start { anonymous = "nobody" }
      for _, pair in ipairs { made.stranger, made.untrusted } do
        local _, seen = ask(pair)
        assert.same({ "nobody", "true" }, { seen["x-consumer-username"], seen["x-anonymous-consumer"] })
      end
      assert.equal("nobody", user(nil))
      assert.equal("alice", user(made.alice))
    end)
  end)

  it("passes over consumers with skip_consumer_lookup: acl sees a group", function()
    local pair = special("group", "/O=Org/CN=admins")
    local function with_acl(by, allow)
      start({ skip_consumer_lookup = true, authenticated_group_by = by }, { plugins = {
        { name = "mtls-auth", config = { ca_certificates = { CA }, skip_consumer_lookup = true,
          authenticated_group_by = by, revocation_check_mode = "SKIP" } },
        { name = "acl", config = { allow = { allow } } } } })
    end
    with_acl(nil, "admins")
    local response, seen = ask(pair)
    assert.equal(200, response.status)
    assert.same({ nil, "admins", "admins" }, { seen["x-consumer-username"], seen["x-authenticated-groups"],
      seen["x-credential-identifier"] })
    assert.equal(403, (ask(made.alice)).status)
    assert_refused(FAILED, (ask(made.untrusted)))
    with_acl("DN", "CN=admins,O=Org")
    assert.equal(200, (ask(pair)).status)
  end)

  it("asks for certificates where a route with it may be meant, and tells names with send_ca_dn", function()
    local function plugin(conf)
      conf.ca_certificates, conf.revocation_check_mode = { CA }, "SKIP"
      return { { name = "mtls-auth", config = conf } }
    end
    start({}, { plugins = {}, services = { { name = "up", url = up:url(), routes = {
      { name = "open", paths = { "/open" } },
      { name = "a", paths = { "/a" }, snis = { "a.test" }, protocols = { "https" },
        plugins = plugin { send_ca_dn = true } },
      { name = "w", paths = { "/w" }, snis = { "*.wild.test" }, protocols = { "https" }, plugins = plugin {} } } } } })
    local function asked(name)
      local _, said = process.run({ "sh", "-c", ("openssl s_client -connect 127.0.0.1:%d -servername %s </dev/null")
        :format(gw.tls_port, name) })
      if said:find("Acceptable client certificate CA names\nCN = Spec CA\n", 1, true) then return "by name" end
      return said:find("Requested Signature Algorithms", 1, true) and "yes" or "no"
    end
    assert.same({ "by name", "yes", "no", "no" }, { asked "a.test", asked "x.wild.test", asked "open.test",
      asked "wild.test" })
    local _, seen = ask(made.alice, { name = "a.test" }, { path = "/a" })
    assert.equal("alice", seen["x-consumer-username"])
    assert.equal(200, (ask(made.alice, { name = "open.test" }, { path = "/open" })).status)
    assert.equal(401, (ask(nil, { name = "a.test" }, { path = "/a" })).status)
  end)

  it("follows changes of authorities and consumers", function()
    start {}
    assert.equal("alice", user(made.alice))
    gw:write_config(config({}, { ca_certificates = { { id = CA, cert = other.certificate_pem } } }))
    process.wait_until(function() return (ask(made.alice)).status == 401 end, 10, "the new authority")
    assert.equal(401, (ask(made.alice)).status)
  end)

  it("refuses a configuration with authorities that are not there, or half a proxy", function()
    local function refusal(conf)
      local path = folder .. "/check.json"
      process.write_file(path, cjson.encode(config(conf)))
      local _, out, err = process.run { gateway.binary, "check", path }
      return out .. err
    end
    assert.matches("config.ca_certificates%[0%]: expected the id of a ca certificate in the configuration",
      refusal { ca_certificates = { "00000000-0000-4000-8000-00000000000f" } })
    assert.matches("https_proxy_host and https_proxy_port or none", refusal { https_proxy_port = 1 })
    assert.matches("http_proxy_host and http_proxy_port or none", refusal { http_proxy_host = "x.test" })
    assert.matches("revocation_check_mode: expected one of", refusal { revocation_check_mode = "OFTEN" })
  end)

  describe("looks up what has been revoked", function()
    local responder, lists, ocsp_port

    local function index(state, pair)
      local serial = openssl("x509", "-in", pair.certificate, "-noout", "-serial"):match("=(%x+)")
      process.write_file(folder .. "/index.txt", table.concat({ state, "350101000000Z",
        state == "R" and "240101000000Z" or "", serial, "unknown", "/CN=x" }, "\t") .. "\n")
      process.write_file(folder .. "/index.txt.attr", "unique_subject = no\n")
    end

    -- It says when it is ready; who connects and says nothing stops it.
    local function start_responder()
      local command = ("exec openssl ocsp -port %d -index index.txt -CA %s -rsigner %s -rkey %s -nmin 5 2>responder")
        :format(ocsp_port, authority.certificate, authority.certificate, authority.key)
      process.write_file(folder .. "/responder", "")
      responder = process.start({ "sh", "-c", command }, { cwd = folder })
      process.wait_until(function()
        return process.read_file(folder .. "/responder"):find("waiting for OCSP", 1, true)
      end, 10, "the OCSP responder")
    end

    local function make_list()
      process.write_file(folder .. "/ca.cnf", table.concat({ "[ca]", "default_ca = it", "[it]",
        "database = index.txt", "crlnumber = number", "default_md = sha256" }, "\n"))
      process.write_file(folder .. "/number", "01\n")
      openssl("ca", "-gencrl", "-config", "ca.cnf", "-cert", authority.certificate, "-keyfile", authority.key,
        "-crldays", "7", "-out", "list.pem")
    end

    -- Gives the file that a target names, also when it is asked as a proxy.
    local function give_file(request, connection)
      local file = io.open(request.target:match("file=(.*)") or "", "rb")
      if not file then return connection:respond(404, {}, "none") end
      local text = file:read("*a")
      file:close()
      connection:respond(200, { ["X-Target"] = request.target }, text)
    end

    setup(function()
      ocsp_port = process.free_port()
      lists = upstream.start(give_file)
      made.ocsp = special("ocsp", "/CN=alice", "authorityInfoAccess=OCSP;URI:http://127.0.0.1:" .. ocsp_port)
      made.crl = special("crl", "/CN=alice", ("crlDistributionPoints=URI:http://127.0.0.1:%d/x?file=%s/list.pem")
        :format(lists.port, folder))
      made.crl_too = special("crl_too", "/CN=bob", ("crlDistributionPoints=URI:http://127.0.0.1:%d/x?file=%s/list.pem")
        :format(lists.port, folder))
      made.proxied = special("proxied", "/CN=alice", ("crlDistributionPoints=URI:http://crl.nowhere.test/x?file="
        .. "%s/list.pem"):format(folder))
      made.tunnelled = special("tunnelled", "/CN=alice", ("crlDistributionPoints=URI:https://crl.nowhere.test/x?file="
        .. "%s/list.pem"):format(folder))
    end)
    teardown(function() lists:stop() end)
    after_each(function()
      if responder then responder:stop() end
      responder = nil
    end)

    local function status(pair)
      return (ask(pair)).status
    end

    it("by OCSP", function()
      for state, expected in pairs { V = 200, R = 401 } do
        index(state, made.ocsp)
        start_responder()
        for _, mode in ipairs { "STRICT", "IGNORE_CA_ERROR" } do
          start { revocation_check_mode = mode }
          assert.same({ state, mode, expected }, { state, mode, status(made.ocsp) })
        end
        responder:stop()
        assert.equal(expected, status(made.ocsp)) -- by what is kept
      end
    end)

    it("by a list", function()
      for state, expected in pairs { V = 200, R = 401 } do
        index(state, made.crl)
        make_list()
        for _, mode in ipairs { "STRICT", "IGNORE_CA_ERROR" } do
          start { revocation_check_mode = mode }
          assert.same({ state, mode, expected }, { state, mode, status(made.crl) })
        end
      end
      start { revocation_check_mode = "SKIP" }
      assert.equal(200, status(made.crl))
    end)

    it("by a list that is fetched once for all who are on it or not", function()
      index("R", made.crl)
      make_list()
      start { revocation_check_mode = "STRICT" }
      lists:forget()
      for _ = 1, 2 do assert.same({ 401, 200 }, { status(made.crl), status(made.crl_too) }) end
      assert.equal(1, lists:stats().requests)
    end)

    it("by a proxy", function()
      index("R", made.proxied)
      make_list()
      start { revocation_check_mode = "IGNORE_CA_ERROR", http_proxy_host = "127.0.0.1", http_proxy_port = lists.port }
      assert.equal(401, status(made.proxied))
    end)

    it("by a proxy's tunnel", function()
      index("R", made.tunnelled)
      make_list()
      local own = tls.make_certificate(folder, { name = "crl.nowhere.test" })
      local secure = upstream.start(give_file, { tls = { certificate = own.certificate, key = own.key } })
      local proxy = relay.start(secure.port, nil, { server = "crl.nowhere.test:443" })
      start({ revocation_check_mode = "STRICT", https_proxy_host = "127.0.0.1", https_proxy_port = proxy.port }, nil,
        { env = { SSL_CERT_FILE = own.certificate } })
      local seen = status(made.tunnelled)
      local asked = secure:stats().requests
      proxy:stop()
      secure:stop()
      assert.same({ 401, 1 }, { seen, asked })
    end)

    it("and passes who cannot be looked up, unless it is STRICT", function()
      for mode, expected in pairs { STRICT = 401, IGNORE_CA_ERROR = 200, SKIP = 200 } do
        start { revocation_check_mode = mode, http_timeout = 1000 }
        assert.same({ mode, expected }, { mode, status(made.ocsp) }) -- nobody listens there
        assert.same({ mode, expected }, { mode, status(made.alice) }) -- says nothing about where
      end
    end)
  end)
end)
