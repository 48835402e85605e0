-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec" -- whose core it is
local certificate = require "sluice.certificate"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"

describe("certificate", function()
  local folder, root, middle, leaf, other, server, expired
  local NOW -- when all of them have been made: none is from the future

  local function openssl(...)
    local status, output, err = process.run({ "openssl", ... }, { cwd = folder })
    assert(status == 0, err)
    return output
  end

  local function read(name)
    return process.read_file(folder .. "/" .. name)
  end

  setup(function()
    folder = posix.temporary_directory()
    root = tls.make_certificate(folder, { name = "Root CA" })
    middle = tls.make_certificate(folder, { name = "Middle CA", ca = root, authority = true })
    leaf = tls.make_certificate(folder, { name = "alice.test", names = { "a.alice.test", "10.1.2.3" }, ca = middle,
      client = true })
    other = tls.make_certificate(folder, { name = "Other CA" })
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "late.key", "-out",
      "late.csr", "-subj", "/CN=late.test")
    openssl("x509", "-req", "-in", "late.csr", "-CA", root.certificate, "-CAkey", root.key, "-CAcreateserial", "-days",
      "-1", "-out", "late.crt")
    expired = { certificate_pem = read "late.crt" }
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "s.key",
      "-out", "s.crt", "-subj", "/O=Org, Inc/CN=first/CN=server.test", "-CA", root.certificate, "-CAkey", root.key,
      "-addext", "extendedKeyUsage=serverAuth", "-addext", "subjectAltName=email:a@b.test,URI:spiffe://x/y,IP:::1",
      "-addext", "authorityInfoAccess=OCSP;URI:http://ocsp.test/a", "-addext",
      "crlDistributionPoints=URI:http://crl.test/a.crl,URI:ldap://x")
    server = { certificate_pem = read "s.crt" }
    NOW = os.time()
  end)
  teardown(function() process.remove(folder) end)

  it("says who it is for, by whom, and where to ask", function()
    local info = assert(certificate.read(leaf.certificate_pem .. middle.certificate_pem))
    assert.equal("CN=alice.test", info.subject)
    assert.equal("alice.test", info.cn)
    assert.equal("CN=Middle CA", info.issuer)
    assert.same({ "alice.test", "a.alice.test" }, info.dns)
    assert.same({ "10.1.2.3" }, info.ip)
    assert.matches("^%x+$", info.serial)
    assert.is_true(info.not_after - info.not_before == 30 * 86400)
    info = assert(certificate.read(server.certificate_pem))
    assert.equal([[CN=server.test,CN=first,O=Org\, Inc]], info.subject)
    assert.same({ "server.test", { "a@b.test" }, { "spiffe://x/y" }, { "::1" }, { "http://ocsp.test/a" },
      { "http://crl.test/a.crl", "ldap://x" } }, { info.cn, info.email, info.uri, info.ip, info.ocsp, info.crl })
  end)

  it("is none when it cannot be read", function()
    assert.matches("^certificate: ", select(2, certificate.read("no certificate")))
    assert.same({ nil, "there is no certificate in it" }, { certificate.authorities("") })
  end)

  describe("is vouched for", function()
    local function verify(authorities, pem, options)
      return assert(certificate.authorities(authorities, options)):verify(pem, NOW)
    end

    it("by a chain to one of the authorities", function()
      local chain = leaf.certificate_pem .. middle.certificate_pem
      local found = assert(verify(other.certificate_pem .. root.certificate_pem, chain))
      assert.same({ middle.certificate_pem, 2 }, { found.issuer, found.authority })
      assert.is_nil((verify(other.certificate_pem, chain)))
    end)

    it("not without what stands between, unless the authorities have it", function()
      assert.same({ nil, "unable to get local issuer certificate" },
        { verify(root.certificate_pem, leaf.certificate_pem) })
      assert.equal(1, verify(root.certificate_pem .. middle.certificate_pem, leaf.certificate_pem).authority)
    end)

    it("by an authority that does not sign itself, when chains may be partial", function()
      assert.is_nil((verify(middle.certificate_pem, leaf.certificate_pem)))
      assert.equal(1, verify(middle.certificate_pem, leaf.certificate_pem, { partial = true }).authority)
    end)

    it("not when it is over, for servers, or its own", function()
      assert.same({ nil, "certificate has expired" }, { verify(root.certificate_pem, expired.certificate_pem) })
      assert.matches("purpose", select(2, verify(root.certificate_pem, server.certificate_pem)))
      assert.matches("self.signed", select(2, verify(root.certificate_pem, other.certificate_pem)))
      assert.same({ nil, "there is no certificate in it" }, { verify(root.certificate_pem, "nothing") })
    end)
  end)

  describe("has been revoked", function()
    -- What `openssl ca` keeps: one line for each certificate.
    local function index(state, pem)
      local info = certificate.read(pem)
      process.write_file(folder .. "/index.txt", table.concat({ state, "350101000000Z",
        state == "R" and "240101000000Z" or "", info.serial, "unknown", "/CN=x" }, "\t") .. "\n")
      process.write_file(folder .. "/index.txt.attr", "unique_subject = no\n")
    end

    local function ask(signer, pem, issuer)
      local request = assert(certificate.ocsp_request(pem, issuer.certificate_pem))
      process.write_file(folder .. "/request", request)
      openssl("ocsp", "-index", "index.txt", "-CA", issuer.certificate, "-rsigner", signer.certificate, "-rkey",
        signer.key, "-reqin", "request", "-respout", "response", "-ndays", "7")
      return request, read "response"
    end

    it("or not, as OCSP says", function()
      for letter, expected in pairs { V = "good", R = "revoked" } do
        index(letter, leaf.certificate_pem)
        local request, response = ask(middle, leaf.certificate_pem, middle)
        local found, holds = certificate.ocsp_read(request, response, leaf.certificate_pem, middle.certificate_pem, NOW)
        assert.equal(expected, found)
        assert.is_true(math.abs(holds - os.time() - 7 * 86400) < 100)
      end
    end)

    it("which OCSP cannot say when it is not the issuer's, about another, or to another request", function()
      index("V", leaf.certificate_pem)
      local pem, by = leaf.certificate_pem, middle.certificate_pem
      local request, response = ask(other, pem, middle)
      assert.matches("not signed by the issuer", select(2, certificate.ocsp_read(request, response, pem, by, NOW)))
      request, response = ask(middle, pem, middle)
      local again = certificate.ocsp_request(pem, by)
      assert.matches("to another request", select(2, certificate.ocsp_read(again, response, pem, by, NOW)))
      local _, unknown = ask(middle, other.certificate_pem, middle)
      assert.matches("to another request", select(2, certificate.ocsp_read(request, unknown, pem, by, NOW)))
      assert.matches("cannot be read", select(2, certificate.ocsp_read(request, "nonsense", pem, by, NOW)))
      index("V", root.certificate_pem)
      request, response = ask(middle, pem, middle)
      assert.matches("unknown", select(2, certificate.ocsp_read(request, response, pem, by, NOW)))
    end)

    local function list(signer, days)
      process.write_file(folder .. "/ca.cnf", table.concat({ "[ca]", "default_ca = it", "[it]",
        "database = index.txt", "crlnumber = number", "default_md = sha256" }, "\n"))
      process.write_file(folder .. "/number", "01\n")
      openssl("ca", "-gencrl", "-config", "ca.cnf", "-cert", signer.certificate, "-keyfile", signer.key, "-crldays",
        tostring(days or 7), "-out", "list.pem")
      return read "list.pem"
    end

    it("or not, as a list says, in PEM or DER", function()
      for letter, expected in pairs { V = "good", R = "revoked" } do
        index(letter, leaf.certificate_pem)
        local pem = list(middle)
        openssl("crl", "-in", "list.pem", "-outform", "DER", "-out", "list.der")
        for _, text in ipairs { pem, read "list.der" } do
          local found, holds = certificate.crl_read(text, leaf.certificate_pem, middle.certificate_pem, NOW)
          assert.equal(expected, found)
          assert.is_true(math.abs(holds - os.time() - 7 * 86400) < 100)
        end
      end
    end)

    it("which a list of another issuer, or what is none, cannot say", function()
      index("R", leaf.certificate_pem)
      local text = list(other)
      local found, err = certificate.crl_read(text, leaf.certificate_pem, middle.certificate_pem, NOW)
      assert.is_nil(found)
      assert.matches("not signed", err)
      assert.matches("cannot be read", select(2, certificate.crl_read("nonsense", leaf.certificate_pem,
        middle.certificate_pem, NOW)))
      assert.matches("cannot be read", select(2, certificate.crl_read("", leaf.certificate_pem,
        middle.certificate_pem, NOW)))
    end)
  end)
end)
