-- SPDX-License-Identifier: Apache-2.0
local codings = require "spec.support.codings"
local spec = require "sluice.spec"

local TEXT = ("all work and no play "):rep(100)

describe("compression", function()
  -- What a client that sends that Accept-Encoding gets of an answer.
  local function response_to(accepted, answer, config, request)
    answer = answer or {}
    answer.headers = answer.headers or { ["Content-Type"] = "text/plain" }
    if not answer.chunks then answer.body = answer.body or TEXT end
    local gateway = spec.gateway {
      plugins = { { name = "compression", config = config } }, upstreams = { ["*"] = answer },
    }
    request = request or { path = "/" }
    request.headers = { ["Accept-Encoding"] = accepted }
    return gateway:request(request)
  end

  local function coding_for(accepted, config)
    return response_to(accepted, nil, config).headers["content-encoding"]
  end

  local function is_plain(response, text)
    assert.is_nil(response.headers["content-encoding"])
    assert.equal(text or TEXT, response.body)
  end

  for name, decode in pairs(codings) do
    it("answers in " .. name, function()
      local response = response_to(name)
      assert.equal(name, response.headers["content-encoding"])
      assert.is_nil(response.headers["content-length"])
      assert.is_true(#response.body < #TEXT / 4)
      assert.same({ TEXT, true }, { decode(response.body) })
    end)

    it("answers in " .. name .. " what comes in pieces without a length", function()
      local response = response_to(name, { chunks = { "one,", "two,", "three" } })
      assert.same({ "one,two,three", true }, { decode(response.body) })
    end)
  end

  it("sends the length of a short answer no more than of a long one, when it is compressed", function()
    local response = response_to("gzip", { body = "short enough" }, { min_length = 0 })
    assert.is_nil(response.headers["content-length"])
    assert.same({ "short enough", true }, { codings.gzip(response.body) })
  end)

  describe("chooses", function()
    it("what the client likes best", function()
      assert.equal("gzip", coding_for "br;q=0.8, gzip;q=0.9, zstd;q=0.1")
      assert.equal("br", coding_for "BR, gzip;q=0.999")
      assert.equal("gzip", coding_for "x-gzip")
    end)

    it("the first of its own among what the client likes equally", function()
      assert.equal("zstd", coding_for "gzip, deflate, br, zstd")
      assert.equal("br", coding_for("gzip, deflate, br, zstd", { algorithms = { "br", "gzip" } }))
      assert.equal("zstd", coding_for "*")
      assert.equal("br", coding_for "*, zstd;q=0")
    end)

    it("nothing that the client does not accept", function()
      for _, accepted in ipairs { "", "deflate", "gzip;q=0", "*;q=0", "identity, gzip;q=0.5", "gzip;q=x", "gzip;q=-1",
        "gzip;level=1", ";;,=" } do
        assert.is_nil(coding_for(accepted), accepted)
      end
      is_plain(response_to(nil))
    end)

    it("the same again when it is asked again, of very many clients too", function()
      local gateway = spec.gateway { plugins = { { name = "compression" } },
        upstreams = { ["*"] = { headers = { ["Content-Type"] = "text/plain" }, body = TEXT } } }
      for i = 1, 250 do
        local response = gateway:request { path = "/",
          headers = { ["Accept-Encoding"] = i % 2 == 0 and "gzip" or "x" .. i } }
        assert.equal(i % 2 == 0 and "gzip" or nil, response.headers["content-encoding"])
      end
    end)
  end)

  describe("leaves alone", function()
    local function alone(answer, config)
      local response = response_to("gzip, br", answer, config)
      is_plain(response, answer.body)
      return response
    end

    it("what has a coding already", function()
      local response = response_to("gzip", { body = "coded" .. TEXT,
        headers = { ["Content-Type"] = "text/plain", ["Content-Encoding"] = "br" } })
      assert.equal("br", response.headers["content-encoding"])
      assert.equal("coded" .. TEXT, response.body)
    end)

    it("what must not be transformed", function()
      alone { headers = { ["Content-Type"] = "text/plain", ["Cache-Control"] = "max-age=5, No-Transform" } }
    end)

    it("types that are not meant, and what has none", function()
      local response = alone { headers = { ["Content-Type"] = "image/png" } }
      assert.is_nil(response.headers.vary)
      alone { headers = { ["Content-Type"] = "application/jsonp" } }
      alone { headers = { ["X-None"] = "1" } }
    end)

    it("what is short, and keeps its length", function()
      local response = alone { body = ("x"):rep(1023) }
      assert.equal("1023", response.headers["content-length"])
      assert.equal("gzip", response_to("gzip", { body = ("x"):rep(1024) }).headers["content-encoding"])
    end)

    it("parts, and answers without content", function()
      alone { status = 206, headers = { ["Content-Type"] = "text/plain", ["Content-Range"] = "bytes 0-2099/9999" } }
      for _, status in ipairs { 204, 304 } do
        local headers = { ["Content-Type"] = "text/css" }
        local response = response_to("gzip", { status = status, body = "", headers = headers })
        assert.is_nil(response.headers["content-encoding"])
      end
    end)
  end)

  it("compresses types with parameters, in any case, and those that a star stands for", function()
    for _, content_type in ipairs { "TEXT/HTML; charset=utf-8", "application/json", "application/problem+json",
      "image/svg+xml", "text/event-stream" } do
      local response = response_to("gzip", { headers = { ["Content-Type"] = content_type } })
      assert.equal("gzip", response.headers["content-encoding"], content_type)
    end
    local answer = { headers = { ["Content-Type"] = "application/vnd.x.y" } }
    assert.equal("gzip", response_to("gzip", answer, { types = { "application/vnd.*" } }).headers["content-encoding"])
    assert.is_nil(response_to("gzip", answer, { types = { "application/vndx*" } }).headers["content-encoding"])
  end)

  it("tells caches that it depends on the client, compressed or not", function()
    assert.equal("Accept-Encoding", response_to("gzip").headers.vary)
    assert.equal("Accept-Encoding", response_to("deflate").headers.vary)
    assert.is_nil(response_to("gzip", nil, { vary = false }).headers.vary)
    local function vary(present)
      local found = {}
      local response = response_to("gzip", { headers = { ["Content-Type"] = "text/plain", Vary = present } })
      for _, field in ipairs(response.fields) do
        if field[1]:lower() == "vary" then found[#found + 1] = field[2] end
      end
      return table.concat(found, ", ")
    end
    assert.equal("Origin, Accept-Encoding", vary "Origin")
    assert.equal("Origin, accept-encoding", vary "Origin, accept-encoding")
    assert.equal("*", vary "*")
  end)

  it("makes a strong ETag weak, and takes away what was said of other bytes", function()
    local headers = { ["Content-Type"] = "text/plain", ETag = '"v1"', ["Accept-Ranges"] = "bytes",
      ["Repr-Digest"] = "sha-256=:x:" }
    local response = response_to("gzip", { headers = headers })
    assert.equal('W/"v1"', response.headers.etag)
    assert.is_nil(response.headers["accept-ranges"])
    assert.is_nil(response.headers["repr-digest"])
    headers.ETag = 'W/"v2"'
    assert.equal('W/"v2"', response_to("gzip", { headers = headers }).headers.etag)
    assert.equal('W/"v2"', response_to("none", { headers = headers }).headers.etag)
    assert.equal("bytes", response_to("none", { headers = headers }).headers["accept-ranges"])
  end)

  it("says of HEAD what it would say of GET, without content", function()
    local response = response_to("gzip", nil, nil, { method = "HEAD", path = "/" })
    assert.equal("gzip", response.headers["content-encoding"])
    assert.equal("", response.body)
  end)

  it("compresses answers of the gateway's own, and what other plugins have made of a body", function()
    local gateway = spec.gateway {
      plugins = {
        { name = "compression", config = { min_length = 0 } },
        { name = "response-transformer", config = { remove = { json = { "secret" } } } },
      },
      upstreams = { ["*"] = { headers = { ["Content-Type"] = "application/json" }, body = '{"secret":1,"open":2}' } },
    }
    local response = gateway:request { path = "/", headers = { ["Accept-Encoding"] = "gzip" } }
    assert.same({ '{"open":2}', true }, { codings.gzip(response.body) })
    gateway = spec.gateway { upstreams = { ["*"] = { refuse = true } },
      plugins = { { name = "compression", config = { min_length = 0 } } } }
    response = gateway:request { path = "/", headers = { ["Accept-Encoding"] = "gzip" } }
    assert.equal(502, response.status)
    assert.equal("gzip", response.headers["content-encoding"])
    local text, whole = codings.gzip(response.body)
    assert.is_true(whole)
    assert.matches("invalid response", text)
  end)

  it("compresses what comes out of the cache, for each client its own way", function()
    local gateway = spec.gateway {
      plugins = { { name = "compression" },
        { name = "proxy-cache", config = { strategy = "memory", content_type = { "*/*" } } } },
      upstreams = { ["*"] = { headers = { ["Content-Type"] = "text/plain" }, body = TEXT } },
    }
    for i, accepted in ipairs { "gzip", "br", "none", "zstd", "gzip" } do
      local response = gateway:request { path = "/", headers = { ["Accept-Encoding"] = accepted } }
      assert.equal(i == 1 and "Miss" or "Hit", response.headers["x-cache-status"])
      local decode = codings[response.headers["content-encoding"]]
      assert.same(accepted ~= "none", decode ~= nil)
      assert.equal(TEXT, decode and (decode(response.body)) or response.body)
    end
  end)

  it("takes the level that it is told", function()
    local sizes = {}
    for _, level in ipairs { 1, 9 } do
      local text = {}
      for i = 1, 3000 do text[i] = tostring(i * 7919 % 10007) end
      local response = response_to("gzip", { body = table.concat(text, " ") }, { gzip_level = level })
      sizes[level] = #response.body
    end
    assert.is_true(sizes[9] < sizes[1])
  end)

  describe("refuses", function()
    local function refused(config)
      local ok, err = spec.check { plugins = { { name = "compression", config = config } } }
      assert.is_nil(ok)
      return err
    end

    it("codings and levels that there are not", function()
      assert.matches("config.algorithms%[0%]: expected one of", refused { algorithms = { "deflate" } })
      assert.matches("config.algorithms: expected each coding once, found br again",
        refused { algorithms = { "br", "br" } })
      assert.matches("config.algorithms: ", refused { algorithms = {} })
      assert.matches("config.gzip_level: ", refused { gzip_level = 10 })
      assert.matches("config.br_level: ", refused { br_level = 12 })
      assert.matches("config.zstd_level: ", refused { zstd_level = 0 })
    end)

    it("what is no media type", function()
      assert.matches("config.types%[0%]: expected a media type such as text/html", refused { types = { "html" } })
      assert.matches("config.min_length: ", refused { min_length = -1 })
    end)
  end)
end)
