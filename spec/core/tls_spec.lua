-- SPDX-License-Identifier: Apache-2.0
-- Both ends are ours, over a socket pair in one thread: each test pumps them by turns, so nothing ever waits.
local ffi = require "ffi"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local net = require "spec.support.net"
local support = require "spec.support.tls"
local make = support.make_certificate

local C = core.load("tls.h", "process.h")

require("spec.support.system").declare_vectors()
local registry = debug.getregistry()
if not registry["sluice.spec.core.tls"] then
  registry["sluice.spec.core.tls"] = true
  ffi.cdef [[
    int sys_socketpair(int, int, int, int *) __asm__("socketpair");
  ]]
end

local WANT_READ, WANT_WRITE, EOF, FAILED, WANT_CERTIFICATE = -1, -2, -3, -4, -5
local folder, root, files
local failure = ffi.new("struct error")
local scratch = ffi.new("char[?]", 300000)

local function why()
  return ffi.string(failure.text)
end

local function server_context(options)
  local context = C.tls_server_context_new(ffi.new("struct tls_server_options", options or {}), failure)
  assert(context ~= nil, why())
  return ffi.gc(context, C.tls_context_free)
end

local function client_context(options)
  options = ffi.new("struct tls_client_options", options or { verify_depth = -1 })
  local context = C.tls_client_context_new(options, failure)
  if context == nil then return nil, why() end
  return ffi.gc(context, C.tls_context_free)
end

local Pair = {}
Pair.__index = Pair

local function pair(server, client, name, verify_name)
  local fds = ffi.new("int[2]")
  assert(C.sys_socketpair(1, 1 + 2048, 0, fds) == 0) -- AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK
  return setmetatable({ fds = fds, server = C.tls_server_new(server, fds[0]),
    client = C.tls_client_new(client, fds[1], name, verify_name or name) }, Pair)
end

function Pair:close()
  C.tls_free(self.client)
  C.tls_free(self.server)
  posix.C.sys_close_fd(self.fds[0])
  posix.C.sys_close_fd(self.fds[1])
end

-- By turns until both are done, or one has failed: then nil, which one and why.
function Pair:handshake()
  local client, server = WANT_READ, WANT_READ
  for _ = 1, 20 do
    if client ~= 0 then client = C.tls_handshake(self.client, failure) end
    if client == FAILED then return nil, "client", why() end
    if server ~= 0 then server = C.tls_handshake(self.server, failure) end
    if server == FAILED then return nil, "server", why() end
    if client == 0 and server == 0 then return true end
    if server == WANT_CERTIFICATE then return "waiting" end
  end
  error(("no end: client %d, server %d"):format(client, server))
end

local function read(tls, room)
  local n = tonumber(C.tls_read(tls, scratch, room or 65536, failure))
  if n < 0 then return nil, n end
  return ffi.string(scratch, n)
end

local function write(tls, ...)
  local pieces = { ... }
  local iov = ffi.new("struct iovec[?]", #pieces)
  for i, piece in ipairs(pieces) do
    iov[i - 1].base, iov[i - 1].len = ffi.cast("void *", ffi.cast("const char *", piece)), #piece
  end
  return tonumber(C.tls_writev(tls, iov, #pieces, failure))
end

local function info(tls)
  local out = ffi.new("struct tls_info")
  C.tls_info(tls, out)
  return { version = ffi.string(out.version), cipher = ffi.string(out.cipher), reused = out.reused,
    alpn = out.alpn ~= nil and ffi.string(out.alpn, out.alpn_len) or nil,
    sni = out.sni ~= nil and ffi.string(out.sni) or nil }
end

local function peer(tls)
  local pem = C.tls_peer_certificate(tls)
  return pem.len > 0 and ffi.string(pem.data, pem.len) or nil
end

-- What a pair of contexts comes to: the client's view, or nil, who and why.
local function meet(server, client, name, verify_name)
  local ends = pair(server, client, name, verify_name)
  local done, who, reason = ends:handshake()
  local view
  if done == true then
    view = info(ends.client)
    view.certificate = peer(ends.client)
    view.client_certificate = peer(ends.server)
    view.sni = info(ends.server).sni
    write(ends.server, "x")
    read(ends.client) -- and the session tickets with it
  end
  ends:close()
  return view, who, reason
end

local function own_tickets(seed)
  local tickets = ffi.new("struct ticket_keys")
  for key = 0, 2 do
    for i = 0, 79 do tickets.keys[key][i] = (seed + key * 80 + i) % 256 end
  end
  return tickets
end

setup(function()
  folder = posix.temporary_directory()
  root = make(folder, { name = "root" })
  files = {
    site = make(folder, { name = "a.example", ca = root }),
    other = make(folder, { name = "b.example", ca = root }),
    wild = make(folder, { name = "*.wild.example", ca = root }),
    address = make(folder, { name = "127.0.0.1", ca = root }),
    client = make(folder, { name = "client", ca = root, client = true }),
  }
  local rsa = folder .. "/rsa"
  assert(0 == process.run { "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa.example",
    "-keyout", rsa .. ".key", "-out", rsa .. ".crt" })
  files.rsa = { certificate_pem = process.read_file(rsa .. ".crt"), key_pem = process.read_file(rsa .. ".key") }
end)

teardown(function()
  process.remove(folder)
end)

local function with(context, file, name, alt)
  local index = C.tls_context_certificate(context, file.certificate_pem, file.key_pem,
    alt and alt.certificate_pem, alt and alt.key_pem, failure)
  assert(index > 0, why())
  assert.equal(0, C.tls_context_sni(context, index, name, failure))
  return context
end

describe("a TLS server", function()
  it("without a certificate presents a self-signed one, the same to everybody", function()
    local server = server_context()
    local first = meet(server, client_context())
    assert.equal("TLSv1.3", first.version)
    assert.matches("BEGIN CERTIFICATE", first.certificate)
    assert.equal(first.certificate, meet(server, client_context()).certificate)
  end)

  it("presents the given default certificate, which tls_self_signed can make", function()
    local certificate, key = ffi.new("char[4096]"), ffi.new("char[4096]")
    assert.equal(0, C.tls_self_signed(certificate, key, failure))
    local server = server_context { default_certificate_pem = certificate, default_key_pem = key }
    assert.equal(ffi.string(certificate), meet(server, client_context()).certificate)
  end)

  it("chooses the certificate by exact name, leading and trailing wildcard, then *", function()
    local server = with(with(with(with(server_context(), files.site, "A.example"), files.other, "b.*"),
      files.wild, "*.wild.example"), files.address, "*")
    local function presented(name) return meet(server, client_context(), name).certificate end
    assert.equal(files.site.certificate_pem, presented("a.EXAMPLE"))
    assert.equal(files.other.certificate_pem, presented("b.test"))
    assert.equal(files.wild.certificate_pem, presented("x.wild.example"))
    assert.equal(files.address.certificate_pem, presented("y.x.wild.example"))
    assert.equal(files.address.certificate_pem, presented(nil))
  end)

  it("finds the right one among a thousand names", function()
    local server = with(server_context(), files.site, "*")
    for i = 1, 1000 do assert.equal(0, C.tls_context_sni(server, 1, "n" .. i .. ".example", failure)) end
    with(server, files.other, "n500.example")
    assert.equal(files.other.certificate_pem, meet(server, client_context(), "n500.example").certificate)
    assert.equal(files.site.certificate_pem, meet(server, client_context(), "n501.example").certificate)
  end)

  it("tells the SNI in lower case", function()
    assert.equal("a.example", meet(server_context(), client_context(), "A.Example").sni)
  end)

  it("agrees on the first of its protocols that the client speaks too, and on none otherwise", function()
    local server = server_context { alpn = "h2,http/1.1" }
    assert.equal("h2", meet(server, client_context { alpn = "http/1.1,h2" }).alpn)
    assert.equal("http/1.1", meet(server, client_context { alpn = "http/1.1" }).alpn)
    assert.is_nil(meet(server, client_context()).alpn)
    local _, who, reason = meet(server, client_context { alpn = "smtp" })
    assert.equal("server", who)
    assert.matches("protocol", reason)
  end)

  it("asks for a client certificate only when told to", function()
    local client = client_context { certificate_pem = files.client.certificate_pem, key_pem = files.client.key_pem }
    assert.equal(files.client.certificate_pem, meet(server_context { ask_client = true }, client).client_certificate)
    assert.is_nil(meet(server_context(), client).client_certificate)
    assert.is_not_nil(meet(server_context { ask_client = true }, client_context()))
  end)

  it("presents RSA to those who know only that, and ECDSA to the others, over TLS 1.2 too", function()
    local server = with(server_context(), files.site, "*", files.rsa)
    local function subject(ciphers)
      local ends = pair(server, client_context())
      local socket = net.wrap(ends.fds[1])
      local wait = net.wait
      net.wait = function(...)
        C.tls_handshake(ends.server, failure)
        return wait(...)
      end
      assert(support.start(socket, { max_version = "1.2", ciphers = ciphers }))
      net.wait = wait
      local agreed = support.info(socket)
      assert.equal("TLSv1.2", agreed.version)
      ends:close()
      return agreed.peer
    end
    assert.equal("/CN=rsa.example", subject("ECDHE-RSA-AES128-GCM-SHA256"))
    assert.equal("/CN=a.example", subject("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"))
  end)
end)

describe("the parse of certificates", function()
  local function refused(...)
    local status = C.tls_context_certificate(server_context(), ...)
    assert.equal(-1, status)
    return why()
  end

  it("says what is wrong with a text that is none", function()
    assert.matches("^certificate: no start line", refused("x", files.site.key_pem, nil, nil, failure))
    assert.matches("^private key: ", refused(files.site.certificate_pem, "x", nil, nil, failure))
    assert.matches("needs its key", refused(files.site.certificate_pem, nil, nil, nil, failure))
  end)

  it("refuses a key of another certificate, also in the alternative", function()
    local pem, key, other = files.site.certificate_pem, files.site.key_pem, files.other.key_pem
    assert.matches("do not belong together: key values mismatch", refused(pem, other, nil, nil, failure))
    assert.matches("do not belong together", refused(pem, key, pem, other, failure))
  end)

  it("refuses a key with a pass phrase instead of asking for it", function()
    local path = folder .. "/locked.key"
    assert(0 == process.run { "openssl", "pkey", "-in", files.site.key, "-aes256", "-passout", "pass:x", "-out", path })
    assert.matches("pass phrase", refused(files.site.certificate_pem, process.read_file(path), nil, nil, failure))
  end)

  it("refuses a chain whose second certificate is damaged", function()
    local damaged = files.site.certificate_pem .. root.certificate_pem:gsub("\nM", "\n!", 1)
    assert.matches("^certificate chain: ", refused(damaged, files.site.key_pem, nil, nil, failure))
  end)
end)

describe("a TLS client", function()
  it("verifies chain and name", function()
    local server = with(server_context(), files.site, "*")
    local client = client_context { verify = true, ca_pem = root.certificate_pem }
    assert.is_not_nil(meet(server, client, "a.example"))
    local _, who, reason = meet(server, client, "b.example")
    assert.equal("client", who)
    assert.equal("certificate verify failed: hostname mismatch", reason)
  end)

  it("verifies an address, and does not send it as SNI", function()
    local server = with(server_context(), files.address, "*")
    local client = client_context { verify = true, ca_pem = root.certificate_pem }
    assert.is_nil(meet(server, client, "127.0.0.1").sni)
    local _, _, reason = meet(server, client, "[::1]")
    assert.equal("certificate verify failed: IP address mismatch", reason)
  end)

  it("does not trust an unknown authority, unless told not to verify", function()
    local server = with(server_context(), files.site, "*")
    local _, _, reason = meet(server, client_context { verify = true }, "a.example")
    assert.matches("^certificate verify failed: unable to get local issuer certificate", reason)
    assert.is_not_nil(meet(server, client_context(), "a.example"))
  end)

  it("says why its own certificate or its roots cannot be used", function()
    local _, reason = client_context { certificate_pem = files.site.certificate_pem, key_pem = files.other.key_pem }
    assert.matches("do not belong together", reason)
    _, reason = client_context { verify = true, ca_pem = "x" }
    assert.matches("^trusted certificates: ", reason)
  end)
end)

describe("session resumption", function()
  it("happens on the second connection to the same names, and not to others", function()
    local server, client = with(server_context(), files.site, "*"), client_context()
    assert.is_false(meet(server, client, "a.example").reused)
    assert.is_true(meet(server, client, "a.example").reused)
    assert.is_false(meet(server, client, "a.example", "other").reused)
    assert.is_false(meet(server, client, "b.example").reused)
  end)

  it("works across contexts that share ticket keys, as workers and generations do", function()
    local tickets, client = own_tickets(1), client_context()
    meet(with(server_context { tickets = tickets }, files.site, "*"), client, "a.example")
    assert.is_true(meet(with(server_context { tickets = tickets }, files.site, "*"), client, "a.example").reused)
    local strangers = own_tickets(2)
    strangers.keys[1][0], strangers.keys[2][0] = 200, 201
    assert.is_false(meet(with(server_context { tickets = strangers }, files.site, "*"), client, "a.example").reused)
  end)

  it("survives a rotation of the keys until its own is gone", function()
    local tickets, client = own_tickets(1), client_context()
    local server = with(server_context { tickets = tickets }, files.site, "*")
    meet(server, client, "a.example")
    tickets.current = 1
    assert.is_true(meet(server, client, "a.example").reused)
    for i = 0, 79 do tickets.keys[1][i] = 7 end
    assert.is_false(meet(server, client, "a.example").reused)
  end)
end)

describe("the certificate hook", function()
  -- FFI callbacks are for specs only: here the hook is a function of Lua.
  local verdict, asked
  local hook

  setup(function()
    hook = ffi.cast("tls_certificate_hook", function(_, tls)
      asked = asked + 1
      assert(ffi.string(C.tls_sni(tls)) == "a.example")
      return verdict
    end)
    jit.off() -- compiled code must not call back into Lua, nor what was compiled before
    jit.flush()
  end)
  teardown(function()
    hook:free()
    jit.on()
  end)
  before_each(function() asked = 0 end)

  local function hooked()
    return server_context { hook = hook }
  end

  it("may wait: the handshake goes on with the certificate that came meanwhile", function()
    verdict = 1
    local ends = pair(hooked(), client_context(), "a.example")
    assert.equal("waiting", ends:handshake())
    assert.equal(WANT_CERTIFICATE, C.tls_handshake(ends.server, failure))
    assert.equal(0, C.tls_set_certificate(ends.server, files.other.certificate_pem, files.other.key_pem, failure))
    C.tls_continue(ends.server)
    assert.is_true(ends:handshake())
    assert.equal(files.other.certificate_pem, peer(ends.client))
    ends:close()
  end)

  it("may leave it to the table", function()
    verdict = 0
    assert.equal(files.site.certificate_pem, meet(with(hooked(), files.site, "*"), client_context(),
      "a.example").certificate)
    assert.equal(1, asked)
  end)

  it("may end the handshake", function()
    verdict = -1
    local _, who = meet(hooked(), client_context(), "a.example")
    assert.equal("server", who)
  end)
end)

describe("a TLS connection", function()
  local ends

  local function connect()
    ends = pair(server_context(), client_context())
    assert.is_true(ends:handshake())
    read(ends.client) -- session tickets
  end

  after_each(function()
    if ends then ends:close() end
    ends = nil
  end)

  it("carries pieces as one stream", function()
    connect()
    assert.equal(11, write(ends.client, "hello", "", " ", "world"))
    assert.equal("hello world", read(ends.server))
    assert.same({ nil, WANT_READ }, { read(ends.server) })
  end)

  it("seals small pieces into one record", function()
    connect()
    write(ends.client, ("a"):rep(100), ("b"):rep(100), ("c"):rep(100))
    local n = tonumber(posix.C.sys_recv(ends.fds[0], scratch, 65536, 0))
    assert.is_true(n > 300 and n < 300 + 40)
  end)

  it("gives all that came in one call, over the bounds of records", function()
    connect()
    local text = ("0123456789abcdef"):rep(2500)
    assert.equal(#text, write(ends.client, text))
    assert.is_true(read(ends.server) == text)
  end)

  it("says that more waits inside when the caller's room was small", function()
    connect()
    write(ends.client, "hello world")
    assert.equal("hello", read(ends.server, 5))
    assert.is_true(C.tls_pending(ends.server))
    assert.equal(" world", read(ends.server))
    assert.is_false(C.tls_pending(ends.server))
  end)

  it("stops when the socket is full, and goes on without losing or doubling a byte", function()
    connect()
    local parts = {}
    for i = 1, 40000 do parts[i] = ("%08d"):format(i) .. ("x"):rep(i % 50) end
    local text = table.concat(parts)
    local sent, blocked, received = 0, 0, {}
    while sent < #text do
      -- Offered from a copy at another address each time, in two pieces.
      local cut = math.min(sent + 700, #text)
      local n = write(ends.client, text:sub(sent + 1, cut), text:sub(cut + 1))
      if n > 0 then
        sent = sent + n
      else
        assert.equal(WANT_WRITE, n)
        blocked = blocked + 1
        received[#received + 1] = read(ends.server, 100000)
      end
    end
    repeat
      local data = read(ends.server, 100000)
      received[#received + 1] = data
    until not data
    assert.is_true(blocked > 1)
    assert.is_true(table.concat(received) == text)
  end)

  it("tells an orderly end from a cut", function()
    connect()
    write(ends.client, "bye")
    assert.equal(0, C.tls_shutdown(ends.client))
    assert.equal("bye", read(ends.server))
    assert.same({ nil, EOF }, { read(ends.server) })
    ends:close()

    connect()
    write(ends.client, "bye")
    posix.C.sys_shutdown(ends.fds[1], 1)
    assert.equal("bye", read(ends.server))
    assert.same({ nil, FAILED }, { read(ends.server) })
    assert.equal(tonumber(C.ERROR_CLOSED), tonumber(failure.code))
  end)

  it("says what is wrong when the peer speaks something else", function()
    ends = pair(server_context(), client_context())
    local text = "GET / HTTP/1.1\r\n\r\n"
    posix.C.sys_send(ends.fds[1], ffi.cast("const char *", text), #text, 0)
    assert.equal(FAILED, C.tls_handshake(ends.server, failure))
    assert.equal("TLS: http request", why())
  end)

  it("does not fail for what another connection left behind", function()
    connect()
    local first = ends
    ends = pair(server_context(), client_context())
    posix.C.sys_send(ends.fds[1], ffi.cast("const char *", ("x"):rep(50)), 50, 0)
    assert.equal(FAILED, C.tls_handshake(ends.server, failure))
    write(first.client, "fine")
    assert.equal("fine", read(first.server))
    assert.same({ nil, WANT_READ }, { read(first.server) })
    first:close()
  end)
end)
