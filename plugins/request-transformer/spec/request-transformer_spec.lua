-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local spec = require "sluice.spec"

describe("request-transformer", function()
  -- The gateway, and what its service gets when this request is sent. `more`: other entities of the configuration.
  local function sent(config, request, more)
    local options = { plugins = { { name = "request-transformer", config = config } },
      upstreams = { ["*"] = { body = "" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    local gateway = spec.gateway(options)
    local response = gateway:request(request or "/")
    return gateway:requests()[1], response, gateway
  end

  local function values(request, name)
    local found = {}
    for _, field in ipairs(request.fields) do
      if field[1]:lower() == name then found[#found + 1] = field[2] end
    end
    return found
  end

  local function refused(config)
    local ok, err = spec.check { plugins = { { name = "request-transformer", config = config } } }
    assert.is_nil(ok)
    return err
  end

  local function post(content_type, body)
    return { method = "POST", path = "/", body = body, headers = { ["Content-Type"] = content_type } }
  end

  -- A route with a regular expression, for captures.
  local function routed_by(path)
    return { services = { { name = "service", url = "http://service.example",
      routes = { { name = "route", paths = { path }, strip_path = false } } } } }
  end

  describe("on the method", function()
    it("sets it", function()
      assert.equal("PATCH", sent({ http_method = "PATCH" }).method)
    end)

    it("puts a form that the new method would lose into the query, beside what is there", function()
      local form = post("application/x-www-form-urlencoded", "a=1&b=%20")
      form.path = "/x?a=0&c=3"
      local got = sent({ http_method = "GET" }, form)
      assert.equal("GET", got.method)
      assert.equal("a=0&a=1&b=%20&c=3", got.query)
    end)

    it("leaves other bodies where they are", function()
      local got = sent({ http_method = "GET" }, post("application/json", '{"a":1}'))
      assert.equal("/", got.target)
      assert.equal('{"a":1}', got.body)
    end)
  end)

  describe("on the path", function()
    it("replaces it and keeps the query", function()
      assert.equal("/other%20path?a=1", sent({ replace = { uri = "/other path" } }, "/x?a=1").target)
    end)

    it("is what a template gives", function()
      local got = sent({ replace = { uri = "/users/$(uri_captures.id)/$(uri_captures[2] or 'none')" } },
        "/u/7/a%20b", routed_by("~/u/(?<id>[0-9]+)/(.*)$"))
      assert.equal("/users/7/a%20b", got.target)
    end)

    it("answers 500 when the result is no path, and says so in the log", function()
      local got, response, gateway = sent { replace = { uri = "$(headers.none)" } }
      assert.equal(500, response.status)
      assert.is_nil(got)
      assert.equal(1, #gateway:log("path must begin with /"))
    end)
  end)

  describe("on header fields", function()
    it("removes, in any spelling that a service may take for the name", function()
      local got = sent({ remove = { headers = { "X-One" } } },
        { path = "/", headers = { ["x-one"] = "1", ["X_One"] = "2", ["X-Two"] = "3" } })
      assert.is_nil(got.headers["x-one"])
      assert.is_nil(got.headers["x_one"])
      assert.equal("3", got.headers["x-two"])
    end)

    it("renames what is there, every field of that name", function()
      local got = sent({ rename = { headers = { "X-One:X-Two", "X-None:X-Three" } } },
        { path = "/", headers = { { "X-One", "1" }, { "X-One", "2" } } })
      assert.same({ "1", "2" }, values(got, "x-two"))
      assert.is_nil(got.headers["x-one"])
      assert.is_nil(got.headers["x-three"])
    end)

    it("replaces what is there", function()
      local got = sent({ replace = { headers = { "X-One:a:b", "X-None:c" } } },
        { path = "/", headers = { ["X-One"] = "1" } })
      assert.equal("a:b", got.headers["x-one"])
      assert.is_nil(got.headers["x-none"])
    end)

    it("replaces Host, which nothing else changes", function()
      local got = sent {
        remove = { headers = { "Host" } }, rename = { headers = { "Host:X-Host" } },
        replace = { headers = { "host:other.example" } },
        add = { headers = { "Host:added.example" } }, append = { headers = { "Host:appended.example" } },
      }
      assert.same({ "other.example" }, values(got, "host"))
      assert.is_nil(got.headers["x-host"])
    end)

    it("adds what is not there", function()
      local got = sent({ add = { headers = { "X-One:2", "X-New:3" } } }, { path = "/", headers = { ["X-One"] = "1" } })
      assert.equal("1", got.headers["x-one"])
      assert.equal("3", got.headers["x-new"])
    end)

    it("appends", function()
      local got = sent({ append = { headers = { "X-One:2", "X-New:3" } } },
        { path = "/", headers = { ["X-One"] = "1" } })
      assert.same({ "1", "2" }, values(got, "x-one"))
      assert.equal("3", got.headers["x-new"])
    end)

    it("removes, renames, replaces, adds and appends in this order", function()
      local got = sent({
        append = { headers = { "X-B:appended" } }, add = { headers = { "X-A:added", "X-B:not" } },
        replace = { headers = { "X-B:replaced" } }, rename = { headers = { "X-C:X-B" } },
        remove = { headers = { "X-A" } },
      }, { path = "/", headers = { ["X-A"] = "a", ["X-C"] = "c" } })
      assert.equal("added", got.headers["x-a"])
      assert.same({ "replaced", "appended" }, values(got, "x-b"))
      assert.is_nil(got.headers["x-c"])
    end)

    it("passes over entries without a value", function()
      local got = sent({ replace = { headers = { "X-One:" } }, rename = { headers = { "X-One:" } } },
        { path = "/", headers = { ["X-One"] = "1" } })
      assert.equal("1", got.headers["x-one"])
    end)
  end)

  describe("on the query", function()
    local function query_of(config, target)
      return sent(config, target).query
    end

    it("removes", function()
      assert.equal("b=2", query_of({ remove = { querystring = { "a", "none" } } }, "/?a=1&b=2&a=3"))
    end)

    it("renames what is there", function()
      assert.equal("b=1&b=2", query_of({ rename = { querystring = { "a:b", "none:c" } } }, "/?a=1&a=2"))
    end)

    it("replaces what is there", function()
      assert.equal("a=x%26y", query_of({ replace = { querystring = { "a:x&y", "none:1" } } }, "/?a=1&a=2"))
    end)

    it("adds what is not there", function()
      assert.equal("a&b=2", query_of({ add = { querystring = { "a:1", "b:2" } } }, "/?a"))
    end)

    it("appends", function()
      assert.equal("a=1&a=2&b=3", query_of({ append = { querystring = { "a:2", "b:3" } } }, "/?a=1"))
    end)

    it("does not bring back what an earlier plugin took out", function()
      local got = sent({ add = { querystring = { "b:2" } } }, "/?secret=1&a=1", {
        plugins = { { name = "hide" },
          { name = "request-transformer", config = { add = { querystring = { "b:2" } } } } },
        plugins_code = { hide = [[
          return { version = "1", priority = 1000, access = function(_, exchange)
            exchange.service.request:clear_query_arg("secret")
          end }
        ]] },
      })
      assert.equal("a=1&b=2", got.query)
    end)
  end)

  local EVERYTHING = {
    remove = { body = { "gone" } }, rename = { body = { "old:new", "none:other" } },
    replace = { body = { "there:2", "none:3" } }, add = { body = { "there:4", "added:5" } },
    append = { body = { "list:6" } },
  }

  describe("on JSON", function()
    it("edits members of an object", function()
      local got = sent(EVERYTHING, post("application/json",
        '{"gone":1,"old":{"x":[]},"there":false,"list":[],"id":12345678901234567890}'))
      assert.matches('"id":12345678901234567890', got.body, 1, true)
      assert.same({ new = { x = {} }, there = "2", added = "5", list = { "6" } },
        json.decode((got.body:gsub('"id":%d+,?', ""):gsub(",}", "}"))))
      assert.equal(tostring(#got.body), got.headers["content-length"])
    end)

    it("makes an array of what is there and the new value", function()
      local got = sent({ append = { body = { "a:2", "b:3", "c:4" } } },
        post("application/json", '{"a":1,"b":"x","c":null}'))
      assert.same({ a = { 1, "2" }, b = { "x", "3" }, c = { "4" } }, json.decode(got.body))
    end)

    it("keeps the order of members, and how what it does not touch is written", function()
      local got = sent({ remove = { body = { "gone" } }, add = { body = { "new:x" } } },
        post("application/json", '{ "z":1.50, "gone":0,"n":"\\u00e9","id":12345678901234567890}'))
      assert.equal('{"z":1.50,"n":"\\u00e9","id":12345678901234567890,"new":"x"}', got.body)
      assert.equal(tostring(#got.body), got.headers["content-length"])
    end)

    it("gives values the types told by place, and leaves out a number that is none", function()
      local got = sent({ add = { body = { "n:1.5", "b:true", "no:number", "s:7", "t:8" },
        json_types = { "number", "boolean", "number", "string" } } }, post("application/json", "{}"))
      assert.equal('{"n":1.5,"b":true,"s":"7","t":"8"}', got.body)
    end)

    it("goes down paths where dots are no part of names", function()
      local edits = { remove = { body = { "a.b", "list[*].secret" } }, add = { body = { "a.c:1" } } }
      local text = '{"a":{"b":1},"a.b":2,"list":[{"secret":1,"open":2}]}'
      assert.equal('{"a":{"b":1},"list":[{"secret":1,"open":2}],"a.c":"1"}',
        sent(edits, post("application/json", text)).body)
      edits.dots_in_keys = false
      assert.equal('{"a":{"c":"1"},"a.b":2,"list":[{"open":2}]}', sent(edits, post("application/json", text)).body)
    end)

    it("asks templates anew for each request", function()
      local gateway = spec.gateway { upstreams = { ["*"] = { body = "" } }, plugins = { { name = "request-transformer",
        config = { add = { body = { "who:$(headers.x_who)" } } } } } }
      for _, who in ipairs { "ann", "bob" } do
        local request = post("application/json", "{}")
        request.headers["X-Who"] = who
        gateway:request(request)
      end
      assert.same({ '{"who":"ann"}', '{"who":"bob"}' }, { gateway:requests()[1].body, gateway:requests()[2].body })
    end)

    it("adds to an empty body", function()
      assert.equal('{"a":"1"}', sent({ add = { body = { "a:1" } } }, post("application/json", "")).body)
    end)

    it("leaves what is no object as it is", function()
      for _, text in ipairs { "[1]", '"a"', "null", '{"a":' } do
        local got, response = sent({ add = { body = { "b:1" } } }, post("application/json", text))
        assert.equal(200, response.status)
        assert.equal(text, got.body)
      end
    end)
  end)

  describe("on forms", function()
    it("edits arguments", function()
      local got = sent(EVERYTHING, post("application/x-www-form-urlencoded; charset=utf-8",
        "gone=1&old=a%20b&there=1&list=1&list=2"))
      assert.equal("added=5&list=1&list=2&list=6&new=a%20b&there=2", got.body)
    end)
  end)

  describe("on multipart forms", function()
    local function multipart(...)
      local lines = {}
      for _, part in ipairs { ... } do
        lines[#lines + 1] = "--xyz\r\n" .. part[1] .. "\r\n\r\n" .. part[2] .. "\r\n"
      end
      return post("multipart/form-data; boundary=xyz", table.concat(lines) .. "--xyz--\r\n")
    end

    local function value(name) return 'Content-Disposition: form-data; name="' .. name .. '"' end

    it("edits parts, and keeps a file's name and type", function()
      local file = value("file") .. '; filename="a.txt"\r\nContent-Type: text/plain'
      local got = sent(EVERYTHING, multipart({ value("gone"), "1" }, { file, "hello\r\n" }, { value("old"), "2" },
        { value("there"), "1" }, { value("list"), "1" }))
      assert.equal(multipart({ file, "hello\r\n" }, { value("there"), "2" }, { value("list"), "1" },
        { value("new"), "2" }, { value("added"), "5" }, { value("list"), "6" }).body, got.body)
    end)

    it("leaves alone what has no boundary, or not the one it names", function()
      local request = multipart({ value("gone"), "1" })
      request.headers["Content-Type"] = "multipart/form-data; boundary=other"
      assert.equal(request.body, sent(EVERYTHING, request).body)
      request.headers["Content-Type"] = "multipart/form-data"
      assert.equal(request.body, sent(EVERYTHING, request).body)
    end)

    it("leaves the body alone rather than break it by a value with the boundary in it", function()
      local request = multipart({ value("there"), "1" })
      assert.equal(request.body, sent({ replace = { body = { "there:--xyz" } } }, request).body)
    end)
  end)

  it("lets only the members go on that are allowed, after all other edits", function()
    local edits = { add = { body = { "c:3", "d:4" } }, allow = { body = { "b", "c" } } }
    assert.equal('{"b":2,"c":"3"}', sent(edits, post("application/json", '{"a":1,"b":2}')).body)
    assert.equal("b=2&c=3", sent(edits, post("application/x-www-form-urlencoded", "a=1&b=2")).body)
    local parts = ('--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'):rep(2):format("a", "1", "b", "2")
    local body = sent(edits, post("multipart/form-data; boundary=x", parts .. "--x--\r\n")).body
    assert.is_nil(body:find('name="a"', 1, true))
    assert.truthy(body:find('name="b"', 1, true))
    assert.truthy(body:find('name="c"', 1, true))
    assert.is_nil(body:find('name="d"', 1, true))
  end)

  it("leaves bodies of other types, and compressed ones, alone", function()
    assert.equal("gone=1", sent(EVERYTHING, post("text/plain", "gone=1")).body)
    local request = post("application/x-www-form-urlencoded", "gone=1")
    request.headers["Content-Encoding"] = "gzip"
    assert.equal("gone=1", sent(EVERYTHING, request).body)
  end)

  describe("templates", function()
    local function rendered(template, request, more)
      local got, response, gateway = sent({ add = { headers = { "X-Out:" .. template } } }, request, more)
      return got and got.headers["x-out"], response, gateway
    end

    it("see header fields, whatever is changed of them", function()
      local got = sent({ remove = { headers = { "X-One" } }, add = { headers = { "X-Two:<$(headers['x-one'])>" },
        querystring = { "one:$(headers.x_one)" } } }, { path = "/", headers = { ["X-One"] = "1" } })
      assert.equal("<1>", got.headers["x-two"])
      assert.equal("one=1", got.query)
    end)

    it("may have several lines", function()
      local basic = [[$((function()
          local value = headers.Authorization
          if not value then return end
          if value:sub(1, 6) == "Basic " then return value end -- as it should be
          return "Basic " .. value
        end)())]]
      for given, wanted in pairs { xyz = "Basic xyz", ["Basic q"] = "Basic q" } do
        assert.equal(wanted, rendered(basic, { path = "/", headers = { Authorization = given } }))
      end
    end)

    it("stand for themselves in quotes of another", function()
      assert.equal("$(as it stands)", rendered("$('$(as it stands)')"))
    end)

    it("see arguments of the query", function()
      assert.equal("a b-true-1, 2", rendered("$(query_params.a)-$(query_params.b)-$(query_params.c)",
        "/?a=a%20b&b&c=1&c=2"))
    end)

    it("see captures by name and number", function()
      assert.equal("7 7 x", rendered("$(uri_captures.id) $(uri_captures[1]) $(uri_captures[2])", "/u/7/x",
        routed_by("~/u/(?<id>[0-9]+)/(.*)$")))
    end)

    it("see what plugins share", function()
      assert.equal("from before", rendered("$(shared.word)", "/", {
        plugins = { { name = "before" }, { name = "request-transformer",
          config = { add = { headers = { "X-Out:$(shared.word)" } } } } },
        plugins_code = { before = [[
          return { version = "1", priority = 1000,
            access = function(_, exchange) exchange.ctx.word = "from before" end }
        ]] },
      }))
    end)

    it("are Lua, with pure libraries", function()
      assert.equal("ABC", rendered("$(headers.host and ('abc'):upper())"))
      assert.equal("3", rendered("$(math.max(1, tonumber(query_params.n) or 0))", "/?n=3"))
      assert.equal("other", rendered("$(query_params.a or 'other')"))
      assert.equal("2", rendered("$((function() local n = 1 return n + 1 end)())"))
    end)

    it("give nothing for nil", function()
      assert.equal("[]", rendered("[$(headers.none)]"))
    end)

    it("work in names that rename gives, and in bodies", function()
      local got = sent({ rename = { headers = { "X-One:X-$(headers.host:match('^%a+'))" } },
        add = { body = { "host:$(headers.host)" } } },
        { method = "POST", path = "/", body = "{}",
          headers = { ["X-One"] = "1", ["Content-Type"] = "application/json" } })
      assert.equal("1", got.headers["x-gateway"])
      assert.equal('{"host":"gateway.example"}', got.body)
    end)

    it("answer 500 when they fail, and the log says where", function()
      local out, response, gateway = rendered("$(headers.none:upper())")
      assert.is_nil(out)
      assert.equal(500, response.status)
      assert.matches("attempt to index", gateway:log("plugin failed")[1])
    end)

    it("reach nothing else", function()
      for _, expression in ipairs { "require('sluice')", "exchange.id", "_G.x", "getfenv()", "io.open('x')" } do
        local _, response = rendered("$(" .. expression .. ")")
        assert.equal(500, response.status)
      end
    end)

    it("cannot set what others see", function()
      local _, response, gateway = rendered("$((function() leak = 1 end)())")
      assert.equal(500, response.status)
      assert.equal(1, #gateway:log("a template cannot set 'leak'"))
    end)
  end)

  describe("refuses", function()
    it("what is no path, where paths are meant", function()
      assert.matches("config.add.body%[0%]: expected a name on both sides of each dot",
        refused { dots_in_keys = false, add = { body = { "a..b:1" } } })
      assert.matches("config.remove.body%[0%]: expected %[%*%], or %[N%] with N from 1, found %[x%]",
        refused { dots_in_keys = false, remove = { body = { "a[x]" } } })
    end)

    it("a type that JSON does not have", function()
      assert.matches("config.add.json_types%[0%]: expected one of", refused { add = { json_types = { "date" } } })
    end)

    it("a header without a value", function()
      for _, step in ipairs { "rename", "replace", "add", "append" } do
        assert.matches(("config.%s.headers%%[0%%]: expected name:value, found \"X\""):format(step),
          refused { [step] = { headers = { "X" } } })
      end
    end)

    it("a name that no field can have", function()
      assert.matches("config.add.headers%[0%]: expected a header name before the colon",
        refused { add = { headers = { "X Y:1" } } })
    end)

    it("a value that would break the head", function()
      for _, entry in ipairs { "X:1\r\nY:2", "X:$(1)\nY:2" } do
        assert.matches("config.add.headers%[0%]: expected a value without control characters",
          refused { add = { headers = { entry } } })
      end
    end)

    it("a method in small letters", function()
      assert.matches("config.http_method: expected a method in capitals, found \"get\"",
        refused { http_method = "get" })
    end)

    it("templates that are no Lua, wherever they stand", function()
      assert.matches("config.replace.uri: expected Lua in its %$%(...%): .*near",
        refused { replace = { uri = "/$(1 +)" } })
      for _, part in ipairs { "headers", "querystring", "body" } do
        assert.matches("config.add." .. part .. "%[0%]: expected Lua in its",
          refused { add = { [part] = { "X:$(1 +)" } } })
      end
    end)
  end)
end)
