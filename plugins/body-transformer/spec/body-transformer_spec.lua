-- SPDX-License-Identifier: Apache-2.0
local codings = require "spec.support.codings"
local spec = require "sluice.spec"

describe("body-transformer", function()
  -- What the service gets of a request, and what the client gets.
  local function sent(config, request, answer, more)
    local options = { plugins = { { name = "body-transformer", config = config } },
      upstreams = { ["*"] = answer or { body = "done" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    local gateway = spec.gateway(options)
    local response = gateway:request(request)
    return gateway:requests()[1], response, gateway
  end

  local function post(content_type, body, path)
    return { method = "POST", path = path or "/", body = body, headers = { ["Content-Type"] = content_type } }
  end

  local function body_of(config, content_type, body)
    local got = sent({ request = config }, post(content_type, body))
    return got.body, got
  end

  local function refused(config)
    local ok, err = spec.check { plugins = { { name = "body-transformer", config = config } } }
    assert.is_nil(ok)
    return err
  end

  describe("reads", function()
    local template = '{"n":{{ body.n }}}'

    it("JSON, and the digits of large integers", function()
      assert.equal('{"n":[1,"two",null,{"x":[]}]}',
        body_of({ template = template }, "application/json", '{"n":[1,"two",null,{"x":[]}]}'))
      assert.equal('{"n":12345678901234567}', body_of({ template = template }, "application/problem+json",
        '{"n":12345678901234567}'))
    end)

    it("XML: texts, attributes, lists", function()
      local text = '<?xml version="1.0"?><order id="7"><item>a &amp; b</item><item>c</item><note/></order>'
      for _, content_type in ipairs { "text/xml", "application/xml; charset=utf-8", "application/soap+xml" } do
        assert.equal('{"id":"7","items":["a & b","c"],"note":""}', body_of({
          template = '{"id":{{ body.order._attr.id }},"items":{{ body.order.item }},"note":{{ body.order.note }}}' },
          content_type, text))
      end
    end)

    it("forms", function()
      assert.equal('{"n":"a b"}', body_of({ template = template }, "application/x-www-form-urlencoded", "n=a+b&m=1"))
    end)

    it("multipart forms", function()
      assert.equal('{"n":"one"}', body_of({ template = template }, "multipart/form-data; boundary=x",
        '--x\r\nContent-Disposition: form-data; name="n"\r\n\r\none\r\n--x--\r\n'))
    end)

    it("anything else as a text", function()
      assert.equal('{"n":"as it is"}', body_of({ template = '{"n":{{ body }}}' }, "text/plain", "as it is"))
      assert.equal('{"n":"as it is"}', body_of({ template = '{"n":{{ raw }}}' }, "text/plain", "as it is"))
    end)

    it("what it is told, whatever the type says", function()
      assert.equal('{"n":5}', body_of({ template = template, input_format = "json" }, "text/plain", '{"n":5}'))
    end)

    it("nothing where there is nothing", function()
      assert.equal('{"n":"none"}', body_of({ template = '{"n":{{ body == nil and "none" or "some" }}}' },
        "application/json", ""))
    end)
  end)

  describe("writes", function()
    it("JSON values that nobody can break out of", function()
      local body, got = body_of({ template = '{"n":{{ body.n }}}' }, "application/x-www-form-urlencoded",
        "n=%22%2C%22admin%22%3Atrue%2C%22x%22%3A%22%0A")
      assert.equal('{"n":"\\",\\"admin\\":true,\\"x\\":\\"\\n"}', body)
      assert.equal("application/json", got.headers["content-type"])
      assert.equal(tostring(#body), got.headers["content-length"])
    end)

    it("XML", function()
      local config = { output_format = "xml", template = "<user><name>{{ body.name }}</name>{{ body.more }}</user>" }
      local body, got = body_of(config, "application/json", '{"name":"<b> & \\"q\\"",'
        .. '"more":{"tag":["x","y"],"_attr":{},"at":{"_attr":{"k":"1"},"_text":"t"}}}')
      assert.equal('<user><name>&lt;b&gt; &amp; &quot;q&quot;</name><at k="1">t</at><tag>x</tag><tag>y</tag></user>',
        body)
      assert.equal("application/xml", got.headers["content-type"])
    end)

    it("forms", function()
      local body, got = body_of({ output_format = "form", template = "a={{ body.a }}&b={{ body.b }}" },
        "application/json", '{"a":"x&b=2","b":7}')
      assert.equal("a=x%26b%3D2&b=7", body)
      assert.equal("application/x-www-form-urlencoded", got.headers["content-type"])
    end)

    it("texts, and the type that it is told", function()
      local body, got = body_of({ output_format = "plain", content_type = "text/csv; header=absent",
        template = "{{ body.a }};{{ body.b }}\n" }, "application/json", '{"a":"<x>","b":[1,2]}')
      assert.equal("<x>;[1,2]\n", body)
      assert.equal("text/csv; header=absent", got.headers["content-type"])
    end)
  end)

  it("runs Lua around text, and passes raw values", function()
    local template = "[{% for i, item in ipairs(body.items) do %}{% if i > 1 then %},{% end %}"
      .. "{{ item.id * 2 }}{% end %}"
      .. '{* body.raw *}]'
    assert.equal("[2,4,6,true]", body_of({ template = template }, "application/json",
      '{"items":[{"id":1},{"id":2},{"id":3}],"raw":",true"}'))
  end)

  it("shows the request", function()
    local got = sent({ request = { output_format = "plain",
      template = "{{ method }} {{ path }} {{ query.q }} {{ headers['x-one'] }} {{ captures.id }} {{ captures[1] }}" } },
      { method = "PUT", path = "/users/17?q=a%20b", headers = { ["X-One"] = "1" }, body = "x" }, nil,
      { services = { { name = "service", url = "http://service.example",
        routes = { { name = "route", paths = { "~/users/(?<id>\\d+)" }, strip_path = false } } } } })
    assert.equal("PUT /users/17 a b 1 17 17", got.body)
  end)

  describe("of responses", function()
    local function response_of(config, answer, request)
      local got, response, gateway = sent({ response = config }, request or { path = "/" }, answer)
      return response, got, gateway
    end

    it("makes another body, with its type and length", function()
      local response, got = response_of({ template = '{"was":{{ status }},"name":{{ body.user.name }}}' },
        { status = 201, headers = { ["Content-Type"] = "text/xml", ETag = '"x"', ["Accept-Ranges"] = "bytes" },
          body = "<user><name>Ann</name></user>" })
      assert.equal(201, response.status)
      assert.equal('{"was":201,"name":"Ann"}', response.body)
      assert.equal("application/json", response.headers["content-type"])
      assert.equal("24", response.headers["content-length"])
      assert.is_nil(response.headers.etag)
      assert.is_nil(response.headers["accept-ranges"])
      assert.equal("identity", got.headers["accept-encoding"])
    end)

    it("answers 502 when the service says what it does not mean", function()
      local response, _, gateway = response_of({ template = "{{ body }}" },
        { headers = { ["Content-Type"] = "application/json" }, body = '{"a":' })
      assert.equal(502, response.status)
      assert.matches("The body of the response is not valid JSON", response.body)
      assert.equal(1, #gateway:log("a body was not transformed"))
    end)

    it("answers 502 when the service compresses all the same", function()
      local response = response_of({ template = "{{ body }}" },
        { headers = { ["Content-Type"] = "application/json", ["Content-Encoding"] = "gzip" }, body = "x" })
      assert.equal(502, response.status)
    end)

    it("can be compressed again behind it", function()
      local _, response = sent({ response = { output_format = "plain", template = "{{ ('again '):rep(300) }}" } },
        { path = "/", headers = { ["Accept-Encoding"] = "gzip" } }, nil,
        { plugins = { { name = "body-transformer", config = { response = { output_format = "plain",
          template = "{{ ('again '):rep(300) }}" } } }, { name = "compression" } } })
      assert.same({ ("again "):rep(300), true }, { codings.gzip(response.body) })
    end)
  end)

  describe("answers 400 to a request whose body", function()
    local function message(content_type, body, headers)
      local request = post(content_type, body)
      for name, value in pairs(headers or {}) do request.headers[name] = value end
      local got, response = sent({ request = { template = "{{ body }}" } }, request)
      assert.is_nil(got)
      assert.equal(400, response.status)
      return response.body
    end

    it("is no JSON", function()
      assert.matches("The body of the request is not valid JSON: .* at byte", message("application/json", '{"a":}'))
    end)

    it("is no XML", function()
      assert.matches("The body of the request is not valid XML: .* in line 2", message("text/xml", "<a>\n<b></a>"))
    end)

    it("has a document type, with which a small XML could become a huge one", function()
      assert.matches("a document type is not allowed", message("text/xml",
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'))
    end)

    it("is XML without end to its depth", function()
      assert.matches("more than 64 elements in each other", message("text/xml", ("<a>"):rep(70) .. ("</a>"):rep(70)))
    end)

    it("is no multipart form", function()
      assert.matches("its type names no boundary", message("multipart/form-data", "x"))
    end)

    it("is compressed", function()
      assert.matches("is compressed %(gzip%)", message("application/json", "x", { ["Content-Encoding"] = "gzip" }))
    end)
  end)

  describe("answers 500, and says why in the log, when a template", function()
    local function failure(template)
      local got, response, gateway = sent({ request = { template = template } }, post("application/json", '{"a":1}'))
      assert.is_nil(got)
      assert.equal(500, response.status)
      assert.is_nil(response.body:find("line", 1, true))
      return gateway:log("a body was not transformed")[1]
    end

    it("fails", function()
      assert.matches("line 2: .*index.*x", failure '{"a":\n{{ body.x.y }}}')
    end)

    it("runs without end", function()
      local _, response, gateway = sent({ request = { template = "{% while true do end %}" } },
        post("application/json", "{}"))
      assert.equal(500, response.status)
      assert.matches("CPU budget", table.concat(gateway:log(), "\n"))
    end)

    it("makes what is no JSON", function()
      assert.matches("the result is no json: ", failure '{"a":"{{ "twice quoted" }}"}')
    end)

    it("wants a name that there is not, or sets one", function()
      assert.matches("undefined name 'bodi'", failure "{{ bodi }}")
      assert.matches("a template cannot set 'x'; use local", failure "{% x = 1 %}{}")
      assert.matches("undefined name 'require'", failure "{{ require 'io' }}")
    end)
  end)

  describe("refuses", function()
    it("a template that is none, and tells the line", function()
      local function err(template) return refused { request = { template = template } } end
      assert.matches("config.request.template: expected a template %(line 2: expected }} behind {{%)",
        err "{\n{{ body ")
      assert.matches("config.request.template: expected a template %(line 3: ", err "{\n\n{{ 1 + }}")
      assert.matches("config.request.template: expected a template %(line 1: ", err "{% if x do %}{% end %}")
      assert.matches("config.request.template: expected a template %(line 1: ", err "{{ 1) os.exit( }}")
    end)

    it("a configuration with nothing to do", function()
      assert.matches("request.*response", refused {})
    end)

    it("formats that there are not", function()
      assert.matches("config.request.input_format: expected one of", refused {
        request = { template = "x", input_format = "yaml" } })
      assert.matches("config.response.output_format: expected one of", refused {
        response = { template = "x", output_format = "yaml" } })
      assert.matches("config.request.content_type: expected a media type", refused {
        request = { template = "x", content_type = "json" } })
    end)
  end)
end)
