-- SPDX-License-Identifier: Apache-2.0
-- Expressions: what they say of a request, what is wrong with those that are none.
local spec = require "sluice.spec"
local expression = require "sluice.expression"

-- Answers whether its expressions hold.
local PROBE = {
  handler = [[
    local expression = require "sluice.expression"
    local probe = { version = "1", priority = 5 }
    local compiled = setmetatable({}, { __mode = "k" })
    function probe.configure(confs)
      for _, conf in ipairs(confs) do
        compiled[conf] = {}
        for i, text in ipairs(conf.expressions) do compiled[conf][i] = assert(expression.compile(text)) end
      end
    end
    function probe.access(conf, exchange)
      local out = {}
      for i, holds in ipairs(compiled[conf]) do out[i] = holds(exchange) end
      exchange.response:exit(200, out)
    end
    return probe
  ]],
  schema = [[return { expressions = { type = "array", required = true, elements = { type = "string" } } }]],
}

-- The expressions, in order, of those that hold for a request.
local function that_hold(request, expressions, extra)
  local options = { plugins_code = { probe = PROBE },
    plugins = { { name = "probe", config = { expressions = expressions } } } }
  for name, value in pairs(extra or {}) do
    if name == "plugins" then
      for _, plugin in ipairs(value) do table.insert(options.plugins, plugin) end
    else
      options[name] = value
    end
  end
  local response = spec.gateway(options):request(request)
  assert.equal(200, response.status, response.body)
  local held = {}
  for i, holds in ipairs(response.json) do
    if holds then held[#held + 1] = expressions[i] end
  end
  return held
end

-- All of `right` hold, none of `wrong`.
local function check(request, right, wrong, extra)
  local all = {}
  for _, text in ipairs(right) do all[#all + 1] = text end
  for _, text in ipairs(wrong) do all[#all + 1] = text end
  assert.same(right, that_hold(request, all, extra))
end

describe("an expression", function()
  it("asks for the method, the host and the path", function()
    check({ method = "POST", path = "/a/b%20c?x=1", headers = { Host = "API.example:8000" } }, {
      'http.method == "POST"', 'http.method != "GET"', 'http.host == "api.example"', 'http.path ^= "/a/"',
      'http.path =^ "c"', 'http.path contains "/b"', 'http.path ~ "^/[a-z]/"', 'http.path ~ r#"\\Sc$"#',
      'http.query == "x=1"',
    }, {
      'http.method == "post"', 'http.host == "API.example"', 'http.path ^= "a"', 'http.path =^ "b"',
      'http.path contains "x"', 'http.path ~ "^b"', 'http.method != "POST"',
    })
  end)

  it("combines tests, && before ||", function()
    check({ path = "/x" }, {
      'http.path == "/x" || http.path == "/y" && http.method == "PUT"',
      '!(http.path == "/y")', '! ( http.path == "/y" || http.method == "PUT" )',
      '(http.path == "/x" || http.path == "/y") && http.method == "GET" && http.path != "/z"',
    }, {
      '(http.path == "/x" || http.path == "/y") && http.method == "PUT"', '!(http.path == "/x")',
      'http.path == "/y" || http.path == "/z" || http.method == "PUT"',
    })
  end)

  it("lowers what it compares, on both sides", function()
    check({ path = "/Foo", headers = { ["X-A"] = "ABC" } }, {
      'lower(http.path) == "/foo"', 'lower(http.path) == "/FOO"', 'lower(http.headers.x_a) ^= "AB"',
      'lower(http.headers.x_a) in ["ABC"]', 'lower(http.headers.x_a) ~ "^abc$"',
    }, { 'http.path == "/foo"', 'lower(http.headers.x_a) ~ "^ABC$"', 'lower(http.path) == "/fo"' })
  end)

  it("asks for headers in Kong's spelling and its own, all of several or any", function()
    check({ headers = { ["X-One"] = "1", ["X-Many"] = { "a", "b" }, x_low = "l" } }, {
      'http.headers.x_one == "1"', 'http.headers.X-One == "1"', 'http.headers."x-one" == "1"',
      'http.headers.x_many ~ "^[ab]$"', 'any(http.headers.x_many) == "b"', 'http.headers.x_many != "c"',
      'any(lower(http.headers.x_many)) == "B"', 'lower(any(http.headers.x_many)) == "A"', 'http.headers.x_low == "l"',
    }, {
      'http.headers.x_many == "a"', 'any(http.headers.x_many) == "c"', 'http.headers.x_many != "a"',
    })
  end)

  it("is false of what is not there, whatever the operator", function()
    check({}, { '!(http.headers.x_none == "a")' }, {
      'http.headers.x_none == ""', 'http.headers.x_none != "a"', 'http.headers.x_none ~ ""',
      'http.headers.x_none not in ["a"]', 'any(http.queries.x) == ""', 'tls.sni != "a"', 'http.query ^= ""',
      'consumer.username != "a"', 'http.path.segments.3 != "a"',
    })
  end)

  it("asks for arguments, decoded; one without a value is empty", function()
    check({ path = "/?a=1&b&c=x%20y&a=2&%64=4" }, {
      'http.queries.b == ""', 'http.queries.c == "x y"', 'any(http.queries.a) == "2"', 'http.queries.a ~ "^[12]$"',
      'http.queries.d == "4"',
    }, { 'http.queries.a == "1"', 'http.queries.e == ""' })
  end)

  it("asks for cookies", function()
    check({ headers = { Cookie = 'a=1; b="two"; ab=3' } },
      { 'http.cookies.a == "1"', 'http.cookies.b == "two"', 'http.cookies.ab == "3"' }, { 'http.cookies.c == "1"' })
  end)

  it("asks for segments of the path", function()
    check({ path = "/a/b/c/" }, {
      'http.path.segments.0 == "a"', 'http.path.segments.2 == "c"', 'http.path.segments.1_2 == "b/c"',
      'http.path.segments.0_2 == "a/b/c"', 'http.path.segments.len == 3',
    }, { 'http.path.segments.3 == ""', 'http.path.segments.1_3 ^= "b"', 'http.path.segments.len == 4' })
    check({ path = "/" }, { 'http.path.segments.len == 0' }, { 'http.path.segments.0 == ""' })
  end)

  it("compares numbers", function()
    check({ method = "POST", body = "12345" }, {
      'http.content_length == 5', 'http.content_length > 4', 'http.content_length >= 5', 'http.content_length < 6',
      'http.content_length <= 5', 'http.content_length != 4', 'http.content_length in [1, 5]',
      'http.content_length not in [1, 2]', 'http.content_length == 0x5', 'http.content_length > -1',
    }, { 'http.content_length > 5', 'http.content_length < 5', 'http.content_length in [4]' })
  end)

  it("asks where the connection comes from", function()
    check({ client_ip = "10.1.2.3" }, {
      'net.src.ip in 10.0.0.0/8', 'net.src.ip == 10.1.2.3', 'net.src.ip not in 192.168.0.0/16',
      'net.src.ip in [192.168.0.0/16, 10.1.2.3]', 'net.src.ip != 10.1.2.4', 'net.protocol == "http"',
      'net.src.ip not in fd00::/8', 'net.dst.port > 0', 'net.src.port > 0',
    }, { 'net.src.ip in 10.2.0.0/16', 'net.src.ip == 10.1.2.4', 'net.src.ip in ::/0', 'net.protocol == "https"' })
    check({ client_ip = "fd00::5" }, { 'net.src.ip in fd00::/8', 'net.src.ip == fd00::5' }, { 'net.src.ip == fd00::6' })
  end)

  it("believes trusted addresses in who the client is", function()
    check({ client_ip = "10.0.0.1", headers = { ["X-Forwarded-For"] = "1.2.3.4" } }, { 'net.src.ip == 1.2.3.4' },
      { 'net.src.ip == 10.0.0.1' }, { gateway = { trusted_ips = { "10.0.0.0/8" } } })
  end)

  it("asks for the server name of TLS", function()
    check({ tls = "a.example", listener = "tls" }, { 'tls.sni == "a.example"', 'net.protocol == "https"',
      'tls.version ^= "TLSv1."' }, { 'tls.sni == "b.example"' })
  end)

  it("asks for the route, the service and the consumer", function()
    local extra = {
      consumers = { { username = "ada", custom_id = "7", keyauth_credentials = { { key = "k" } },
        groups = { { name = "gold" }, { name = "staff" } } } },
      consumer_groups = { { name = "gold" }, { name = "staff" } }, plugins = { { name = "key-auth" } },
    }
    check({ headers = { apikey = "k" } }, {
      'route.name == "route"', 'service.name == "service"', 'consumer.username == "ada"', 'consumer.custom_id == "7"',
      'any(consumer.groups) == "gold"', 'any(consumer.groups) in ["staff"]',
    }, { 'consumer.username == "bob"', 'any(consumer.groups) == "silver"', 'consumer.groups == "gold"' }, extra)
  end)

  it("takes lists of texts", function()
    check({ method = "PATCH" }, { 'http.method in ["GET", "PATCH"]', 'http.method not in [ "PUT" ]' },
      { 'http.method in ["PUT"]', 'http.method not in ["PATCH", "PUT"]' })
  end)

  it("takes texts with escapes, and raw ones", function()
    check({ path = "/?a=%22%5C%0A" }, { [[http.queries.a == "\"\\\n"]], 'http.queries.a ^= r#""\\"#' },
      { [[http.queries.a == "\\\"\n"]] })
  end)

  describe("that is wrong", function()
    local function wrong(text)
      local ok, err = expression.compile(text)
      assert.is_nil(ok)
      return err
    end

    local CASES = {
      { '', 'column 1: expected a field, found the end' },
      { 'http.method', 'column 12: expected an operator' },
      { 'http.method ==', 'column 15: expected a text in quotes, an integer or an address, found the end' },
      { 'http.method == GET', 'column 16: expected a text in quotes, an integer or an address, found "GET"' },
      { 'http.method = "GET"', 'column 13: expected an operator' },
      { 'http.metod == "GET"', 'column 1: there is no field http.metod, did you mean "http.method"?' },
      { 'http.method == "GET" and http.host == "a"', 'column 22: expected &&, || or the end, found "and"' },
      { '(http.method == "GET"', 'column 22: expected ), found the end' },
      { '!http.method == "GET"', 'column 2: expected ( behind !, found "http.method"' },
      { 'http.method == "GET', 'column 16: this text has no end' },
      { 'http.path ~ r#"abc', 'column 13: this text has no end' },
      { [[http.method == "\x"]], 'column 17: expected \\n, \\r, \\t, \\\\ or \\" in a text' },
      { 'http.method == 5', 'column 16: expected a text, as http.method is one, found an integer' },
      { 'net.dst.port == "80"', 'column 17: expected an integer, as net.dst.port is one, found a text' },
      { 'net.dst.port == 80a', 'column 17: expected an integer' },
      { 'http.method > "a"', 'column 13: expected an operator for a text (!=, ==, =^, ^=, contains, in, not in, ~)' },
      { 'net.src.ip ~ "10"', 'column 12: expected an operator for an address (!=, ==, in, not in)' },
      { 'net.src.ip in 10.0.0.0/33', 'column 15: expected an address or a range ("10.0.0.0/33" has an invalid' },
      { 'net.src.ip == 10.0.0.0/8', 'column 15: expected an address (a range goes with in and not in)' },
      { 'http.path ~ "("', 'column 13: expected a regular expression (' },
      { 'http.method in "GET"', 'column 16: expected a list in [ ] behind in' },
      { 'http.method == ["GET"]', 'column 17: expected one value behind ==, found a list' },
      { 'http.method in ["GET"', 'column 22: expected ] or ,, found the end' },
      { 'lower(net.dst.port) == 1', 'column 7: lower() is for texts, and net.dst.port is an integer' },
      { 'lower(http.path == "/a"', 'column 17: expected ) behind lower(' },
      { 'http.method not == "a"', 'column 17: expected in behind not' },
      { 'http.headers. == "a"', 'column 14: expected a name behind the dot' },
      { 'http.path.segments.2_1 == "a"', 'column 1: there is no field http.path.segments.2_1' },
      { 'http.method == "GET" &&\n  http.hots == "a"', 'line 2, column 3: there is no field http.hots' },
      { ("("):rep(100), 'column 66: more than 64 parentheses within each other' },
      { ('"'):rep(20000), 'it is longer than 16384 bytes' },
    }
    for _, case in ipairs(CASES) do
      it("says what and where: " .. case[1]:sub(1, 40):gsub("\n", " "), function()
        local err = wrong(case[1])
        assert.equal(case[2], err:sub(1, #case[2]))
      end)
    end
  end)
end)

describe("an expression on addresses", function()
  it("stays right for more addresses than it keeps", function()
    local options = { plugins_code = { probe = PROBE }, plugins = { { name = "probe",
      config = { expressions = { "net.src.ip in 10.0.0.0/16" } } } } }
    local gateway = spec.gateway(options)
    for i = 0, 4200 do
      local address = ("10.%d.%d.%d"):format(i % 2, math.floor(i / 250), i % 250)
      local body = gateway:request { path = "/", client_ip = address }.body
      if body ~= (i % 2 == 0 and "[true]" or "[false]") then error(address .. ": " .. body) end
    end
    assert.equal("[true]", gateway:request { path = "/", client_ip = "10.0.0.0" }.body)
  end)
end)
