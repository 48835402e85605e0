-- SPDX-License-Identifier: Apache-2.0
-- TLS for spec.support.net, through OpenSSL itself: client and server ends, certificates made on the spot.
local ffi = require "ffi"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local tls = {}

local registry = debug.getregistry()
if not registry["sluice.spec.tls"] then
  ffi.cdef [[
    void *sys_TLS_client_method(void) __asm__("TLS_client_method");
    void *sys_TLS_server_method(void) __asm__("TLS_server_method");
    void *sys_SSL_CTX_new(void *) __asm__("SSL_CTX_new");
    void sys_SSL_CTX_free(void *) __asm__("SSL_CTX_free");
    long sys_SSL_CTX_ctrl(void *, int, long, void *) __asm__("SSL_CTX_ctrl");
    void sys_SSL_CTX_set_verify(void *, int, void *) __asm__("SSL_CTX_set_verify");
    int sys_SSL_CTX_load_verify_file(void *, const char *) __asm__("SSL_CTX_load_verify_file");
    int sys_SSL_CTX_use_certificate_chain_file(void *, const char *) __asm__("SSL_CTX_use_certificate_chain_file");
    int sys_SSL_CTX_use_PrivateKey_file(void *, const char *, int) __asm__("SSL_CTX_use_PrivateKey_file");
    int sys_SSL_CTX_set_cipher_list(void *, const char *) __asm__("SSL_CTX_set_cipher_list");
    int sys_SSL_CTX_set_alpn_protos(void *, const char *, unsigned) __asm__("SSL_CTX_set_alpn_protos");
    void *sys_SSL_new(void *) __asm__("SSL_new");
    void sys_SSL_free(void *) __asm__("SSL_free");
    int sys_SSL_set_fd(void *, int) __asm__("SSL_set_fd");
    long sys_SSL_ctrl(void *, int, long, const void *) __asm__("SSL_ctrl");
    int sys_SSL_set1_host(void *, const char *) __asm__("SSL_set1_host");
    int sys_SSL_connect(void *) __asm__("SSL_connect");
    int sys_SSL_accept(void *) __asm__("SSL_accept");
    int sys_SSL_read(void *, void *, int) __asm__("SSL_read");
    int sys_SSL_write(void *, const void *, int) __asm__("SSL_write");
    int sys_SSL_shutdown(void *) __asm__("SSL_shutdown");
    int sys_SSL_get_error(const void *, int) __asm__("SSL_get_error");
    const char *sys_SSL_get_version(const void *) __asm__("SSL_get_version");
    const char *sys_SSL_get_servername(const void *, int) __asm__("SSL_get_servername");
    void sys_SSL_get0_alpn_selected(const void *, const unsigned char **, unsigned *)
      __asm__("SSL_get0_alpn_selected");
    typedef int (*sys_alpn_select)(void *, const unsigned char **, unsigned char *, const unsigned char *, unsigned,
      void *);
    void sys_SSL_CTX_set_alpn_select_cb(void *, sys_alpn_select, void *) __asm__("SSL_CTX_set_alpn_select_cb");
    int sys_SSL_CTX_set_session_id_context(void *, const char *, unsigned) __asm__("SSL_CTX_set_session_id_context");
    void *sys_SSL_get1_session(void *) __asm__("SSL_get1_session");
    int sys_SSL_set_session(void *, void *) __asm__("SSL_set_session");
    int sys_SSL_session_reused(const void *) __asm__("SSL_session_reused");
    void sys_SSL_SESSION_free(void *) __asm__("SSL_SESSION_free");
    void *sys_SSL_get1_peer_certificate(const void *) __asm__("SSL_get1_peer_certificate");
    void *sys_X509_get_subject_name(const void *) __asm__("X509_get_subject_name");
    char *sys_X509_NAME_oneline(const void *, char *, int) __asm__("X509_NAME_oneline");
    void sys_X509_free(void *) __asm__("X509_free");
    unsigned long sys_ERR_get_error(void) __asm__("ERR_get_error");
    void sys_ERR_clear_error(void) __asm__("ERR_clear_error");
    void sys_ERR_error_string_n(unsigned long, char *, size_t) __asm__("ERR_error_string_n");
  ]]
  registry["sluice.spec.tls"] = ffi.load("ssl")
end
local ssl = registry["sluice.spec.tls"]

local SSL_ERROR_SSL, WANT_READ, WANT_WRITE, SSL_ERROR_SYSCALL, ZERO_RETURN = 1, 2, 3, 5, 6
local SET_SERVERNAME, SET_MIN_VERSION, SET_MAX_VERSION = 55, 123, 124
local versions = { ["1.0"] = 0x301, ["1.1"] = 0x302, ["1.2"] = 0x303, ["1.3"] = 0x304 }

local function openssl_error()
  local code = ssl.sys_ERR_get_error()
  if code == 0 then return "TLS failed" end
  local text = ffi.new("char[256]")
  ssl.sys_ERR_error_string_n(code, text, 256)
  return ffi.string(text)
end

-- What a call that returned `result` means: nil and POLLIN, POLLOUT or a reason; 0 at the orderly end.
local function outcome(self, result)
  local kind = ssl.sys_SSL_get_error(self.ssl, result)
  if kind == WANT_READ then return nil, posix.POLLIN end
  if kind == WANT_WRITE then return nil, posix.POLLOUT end
  if kind == ZERO_RETURN then return 0 end
  if kind == SSL_ERROR_SYSCALL and ffi.errno() ~= 0 then return nil, net.reason(ffi.errno()) end
  if kind == SSL_ERROR_SSL then return nil, openssl_error() end
  return nil, "closed" -- without close_notify
end

local operations = {}

function operations.read(self)
  ssl.sys_ERR_clear_error()
  local count = ssl.sys_SSL_read(self.ssl, net.scratch, net.CHUNK)
  if count > 0 then return count end
  return outcome(self, count)
end

function operations.write(self, data, from)
  ssl.sys_ERR_clear_error()
  local count = ssl.sys_SSL_write(self.ssl, ffi.cast("const char *", data) + from, #data - from)
  if count > 0 then return count end
  return outcome(self, count)
end

function operations.finish(self)
  ssl.sys_SSL_shutdown(self.ssl)
end

function operations.close(self)
  ssl.sys_SSL_shutdown(self.ssl)
  ssl.sys_SSL_free(self.ssl)
  if self.context_owned then ssl.sys_SSL_CTX_free(self.context) end
  self.ssl = nil
end

-- A server agrees to the name (one) that it is given, if the client offers it. Called by OpenSSL inside of SSL_accept,
-- which may not be compiled for it.
local function select_alpn(_, out, out_len, offered, len, names)
  local wanted = ffi.string(ffi.cast("const char *", names))
  local at = 0
  while at < len do
    if ffi.string(offered + at + 1, offered[at]) == wanted then
      out[0], out_len[0] = offered + at + 1, offered[at]
      return 0
    end
    at = at + 1 + offered[at]
  end
  return 3 -- SSL_TLSEXT_ERR_NOACK
end

local function handshake(self)
  ssl.sys_ERR_clear_error()
  local result = self.server and ssl.sys_SSL_accept(self.ssl) or ssl.sys_SSL_connect(self.ssl)
  if result == 1 then return true end
  local ended, why = outcome(self, result)
  return nil, ended and "closed" or why
end

jit.off(handshake)

local selects -- OpenSSL's way to select_alpn, made once
local kept = {} -- names that contexts point to

local function select_for(context, names)
  selects = selects or ffi.cast("sys_alpn_select", select_alpn)
  local name = ffi.new("char[?]", #names[1] + 1, names[1])
  kept[#kept + 1] = name
  ssl.sys_SSL_CTX_set_alpn_select_cb(context, selects, name)
end

local function set_alpn(context, names)
  local wire = {}
  for _, name in ipairs(names) do wire[#wire + 1] = string.char(#name) .. name end
  wire = table.concat(wire)
  ssl.sys_SSL_CTX_set_alpn_protos(context, wire, #wire)
end

local function present_certificate(context, options)
  assert(ssl.sys_SSL_CTX_use_certificate_chain_file(context, options.certificate) == 1, openssl_error())
  assert(ssl.sys_SSL_CTX_use_PrivateKey_file(context, options.key, 1) == 1, openssl_error())
end

-- options of both ends: certificate, key, ca (paths of PEM files; a ca makes the peer be verified), min_version,
-- max_version ("1.2"). Give back with tls.free, after the sockets.
function tls.context(options, server)
  local context = ssl.sys_SSL_CTX_new(server and ssl.sys_TLS_server_method() or ssl.sys_TLS_client_method())
  if options.certificate then present_certificate(context, options) end
  if options.ca then
    assert(ssl.sys_SSL_CTX_load_verify_file(context, options.ca) == 1, openssl_error())
    ssl.sys_SSL_CTX_set_verify(context, server and 3 or 1, nil)
    -- Without it a server that verifies fails at every session that a client resumes.
    if server then ssl.sys_SSL_CTX_set_session_id_context(context, "spec", 4) end
  end
  if options.min_version then ssl.sys_SSL_CTX_ctrl(context, SET_MIN_VERSION, versions[options.min_version], nil) end
  if options.max_version then ssl.sys_SSL_CTX_ctrl(context, SET_MAX_VERSION, versions[options.max_version], nil) end
  if options.ciphers then ssl.sys_SSL_CTX_set_cipher_list(context, options.ciphers) end
  if options.alpn and server then
    select_for(context, options.alpn)
  elseif options.alpn then
    set_alpn(context, options.alpn)
  end
  return context
end

function tls.free(context)
  ssl.sys_SSL_CTX_free(context)
end

-- options beside those of tls.context: context (one made before), server, name (SNI, and the name to verify), session.
function tls.start(self, options)
  self.context = options.context or tls.context(options, options.server)
  self.context_owned = not options.context
  self.server = options.server
  self.ssl = ssl.sys_SSL_new(self.context)
  ssl.sys_SSL_set_fd(self.ssl, self.fd)
  if options.name then
    ssl.sys_SSL_ctrl(self.ssl, SET_SERVERNAME, 0, ffi.cast("const char *", options.name))
    if options.ca then ssl.sys_SSL_set1_host(self.ssl, options.name) end
  end
  if options.session then ssl.sys_SSL_set_session(self.ssl, options.session) end
  self.operations = operations
  return self:attempt(handshake, self:deadline())
end

-- What the handshake of a socket came to: version, alpn, sni, resumed, peer (subject of its certificate, or nil).
function tls.info(self)
  local data, len = ffi.new("const unsigned char *[1]"), ffi.new("unsigned[1]")
  ssl.sys_SSL_get0_alpn_selected(self.ssl, data, len)
  local sni = ssl.sys_SSL_get_servername(self.ssl, 0)
  local info = {
    version = ffi.string(ssl.sys_SSL_get_version(self.ssl)),
    alpn = len[0] > 0 and ffi.string(data[0], len[0]) or nil,
    sni = sni ~= nil and ffi.string(sni) or nil,
    resumed = ssl.sys_SSL_session_reused(self.ssl) == 1,
  }
  local certificate = ssl.sys_SSL_get1_peer_certificate(self.ssl)
  if certificate ~= nil then
    local text = ffi.new("char[512]")
    ssl.sys_X509_NAME_oneline(ssl.sys_X509_get_subject_name(certificate), text, 512)
    ssl.sys_X509_free(certificate)
    info.peer = ffi.string(text)
  end
  return info
end

-- The session of a socket, for options.session of a later one. With TLS 1.3 it exists once data has been received.
function tls.session(self)
  return ffi.gc(ssl.sys_SSL_get1_session(self.ssl), ssl.sys_SSL_SESSION_free)
end

-- ---- Certificates ----

local function openssl(...)
  local status, _, err = process.run({ "openssl", ... })
  assert(status == 0, err)
end

local function alternative_names(options)
  local names = { (options.name:match("^[%d.]+$") and "IP:" or "DNS:") .. options.name }
  for _, name in ipairs(options.names or {}) do
    names[#names + 1] = (name:match("^[%d.]+$") and "IP:" or "DNS:") .. name
  end
  return "subjectAltName=" .. table.concat(names, ",")
end

local function add(list, words)
  for _, word in ipairs(words) do list[#list + 1] = word end
end

-- Makes a certificate with its key in `directory`. options: name, names (more subject alternative names), ca (another
-- such certificate that signs it; without one it signs itself and may sign others), authority (may sign others all the
-- same), client (for client authentication), days (negative: expired).
-- Gives { certificate = path, key = path, certificate_pem = text, key_pem = text }.
function tls.make_certificate(directory, options)
  local stem = directory .. "/" .. options.name:gsub("[^%w.-]", "_")
  local made = { certificate = stem .. ".crt", key = stem .. ".key" }
  local expired = options.days and options.days < 0
  local command = { "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
    "-subj", "/CN=" .. options.name, "-addext", alternative_names(options), "-keyout", made.key }
  local signer = options.ca and { "-CA", options.ca.certificate, "-CAkey", options.ca.key } or {}
  if options.ca then
    add(command, { "-addext", "basicConstraints=critical,CA:" .. (options.authority and "TRUE" or "FALSE") })
  end
  if options.client then add(command, { "-addext", "extendedKeyUsage=clientAuth" }) end
  if expired then -- `req` makes none that has expired: it makes a request, which is signed by itself
    add(command, { "-new", "-out", stem .. ".csr" })
    openssl(unpack(command))
    command = { "x509", "-req", "-in", stem .. ".csr", "-copy_extensions", "copyall" }
    if not options.ca then signer = { "-key", made.key } end
  else
    add(command, { "-x509" })
  end
  add(command, { "-days", tostring(options.days or 30), "-out", made.certificate })
  add(command, signer)
  openssl(unpack(command))
  made.certificate_pem, made.key_pem = process.read_file(made.certificate), process.read_file(made.key)
  return made
end

return tls
