-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local spec = require "sluice.spec"

describe("response-transformer", function()
  -- The response of a service with these fields and that body, after the plugin.
  local function response_to(config, answer, request)
    local gateway = spec.gateway {
      plugins = { { name = "response-transformer", config = config } },
      upstreams = { ["*"] = answer or { headers = { ["X-One"] = "1" }, body = "plain" } },
    }
    return gateway:request(request or "/"), gateway
  end

  local function body_of(config, body, headers)
    headers = headers or { ["Content-Type"] = "application/json; charset=utf-8" }
    return response_to(config, { headers = headers, body = body }).body
  end

  local function values(response, name)
    local found = {}
    for _, field in ipairs(response.fields) do
      if field[1]:lower() == name then found[#found + 1] = field[2] end
    end
    return found
  end

  local function refused(config)
    local ok, err = spec.check { plugins = { { name = "response-transformer", config = config } } }
    assert.is_nil(ok)
    return err
  end

  describe("on header fields", function()
    it("removes", function()
      assert.is_nil(response_to({ remove = { headers = { "x-one", "X-None" } } }).headers["x-one"])
    end)

    it("renames what is there, every field of that name", function()
      local response = response_to({ rename = { headers = { "X-One:X-Two", "X-None:X-Three" } } },
        { headers = { { "X-One", "1" }, { "X-One", "2" } }, body = "" })
      assert.same({ "1", "2" }, values(response, "x-two"))
      assert.is_nil(response.headers["x-one"])
      assert.is_nil(response.headers["x-three"])
    end)

    it("replaces what is there", function()
      local response = response_to { replace = { headers = { "X-One:new:value", "X-None:new" } } }
      assert.equal("new:value", response.headers["x-one"])
      assert.is_nil(response.headers["x-none"])
    end)

    it("adds what is not there", function()
      local response = response_to { add = { headers = { "X-One:2", "X-New:3" } } }
      assert.equal("1", response.headers["x-one"])
      assert.equal("3", response.headers["x-new"])
    end)

    it("appends", function()
      local response = response_to { append = { headers = { "X-One:2", "X-One:3", "X-New:4" } } }
      assert.same({ "1", "2", "3" }, values(response, "x-one"))
      assert.equal("4", response.headers["x-new"])
    end)

    it("removes, renames, replaces, adds and appends in this order", function()
      local response = response_to({
        append = { headers = { "X-B:appended" } }, add = { headers = { "X-A:added", "X-B:not" } },
        replace = { headers = { "X-B:replaced" } }, rename = { headers = { "X-C:X-B" } },
        remove = { headers = { "X-A" } },
      }, { headers = { ["X-A"] = "a", ["X-C"] = "c" }, body = "" })
      assert.equal("added", response.headers["x-a"])
      assert.same({ "replaced", "appended" }, values(response, "x-b"))
      assert.is_nil(response.headers["x-c"])
    end)

    it("passes over entries without a value", function()
      local response = response_to { replace = { headers = { "X-One:" } }, rename = { headers = { "X-One:" } } }
      assert.equal("1", response.headers["x-one"])
    end)

    it("edits answers of the gateway itself too", function()
      local response = response_to({ add = { headers = { "X-New:1" } } }, { refuse = true })
      assert.equal(502, response.status)
      assert.equal("1", response.headers["x-new"])
    end)

    it("leaves the length of the body known", function()
      local response = response_to { add = { headers = { "X-New:1" } } }
      assert.equal("5", response.headers["content-length"])
    end)
  end)

  describe("on JSON bodies", function()
    it("removes members", function()
      assert.equal('{"b":2}', body_of({ remove = { json = { "a", "none" } } }, '{"a":1,"b":2}'))
    end)

    it("renames members that are there", function()
      assert.equal('{"c":{"x":[]}}', body_of({ rename = { json = { "a:c", "none:d" } } }, '{"a":{"x":[]}}'))
    end)

    it("replaces members that are there, even with false or null in them", function()
      local text = body_of({ replace = { json = { "a:x:y", "b:1", "none:2" } } }, '{"a":false,"b":null}')
      assert.same({ a = "x:y", b = "1" }, json.decode(text))
    end)

    it("adds members that are not there", function()
      assert.same({ a = false, b = "2" }, json.decode(body_of({ add = { json = { "a:1", "b:2" } } }, '{"a":false}')))
    end)

    it("appends: what is there and the new value become an array", function()
      local text = body_of({ append = { json = { "text:2", "list:3", "none:4", "number:6", "null:7" } } },
        '{"text":"1","list":[],"number":5,"null":null}')
      assert.same({ text = { "1", "2" }, list = { "3" }, none = { "4" }, number = { 5, "6" }, null = { "7" } },
        json.decode(text))
    end)

    it("gives values the types told by place", function()
      local types = { "number", "boolean", "string", "number" }
      for _, step in ipairs { "add", "append", "replace" } do
        local before = step == "replace" and '{"n":0,"b":0,"s":0,"t":0}' or "{}"
        local text = body_of({ [step] = { json = { "n:-1.5", "b:true", "s:7", "no:number", "t:8" },
          json_types = types } }, before)
        local expected = { n = -1.5, b = true, s = "7", t = "8" }
        if step == "append" then expected = { n = { -1.5 }, b = { true }, s = { "7" }, t = { "8" } } end
        assert.same(expected, json.decode(text))
      end
    end)

    it("takes what is not true for false", function()
      assert.equal('{"b":false}', body_of({ add = { json = { "b:yes" }, json_types = { "boolean" } } }, "{}"))
    end)

    it("keeps empty arrays, and the digits of large integers", function()
      local edits = { remove = { json = { "a" } } }
      assert.equal('{"id":12345678901234567890}', body_of(edits, '{"a":1,"id":12345678901234567890}'))
      assert.equal('{"list":[]}', body_of(edits, '{"a":1,"list":[]}'))
    end)

    it("keeps the order of members, and how what it does not touch is written", function()
      assert.equal('{"z":1.50,"n":"\\u00e9","a":[ 1 ],"new":"x"}',
        body_of({ add = { json = { "new:x" } }, remove = { json = { "gone" } } },
          '{ "z" : 1.50,"gone":0, "n":"\\u00e9","a":[ 1 ] }'))
    end)

    it("edits what is not UTF-8", function()
      assert.equal('{"b":"caf\233"}', body_of({ remove = { json = { "a" } } }, '{"a":1,"b":"caf\233"}'))
    end)

    it("takes a dot for a part of the name", function()
      assert.equal('{"a":{"b":1}}', body_of({ remove = { json = { "a.b" } } }, '{"a":{"b":1},"a.b":2}'))
    end)

    it("goes down paths, into every element or one of a list", function()
      local text = body_of({
        dots_in_keys = false,
        remove = { json = { "customers[*].info.phone" } }, rename = { json = { "meta.old:new" } },
        replace = { json = { "list[2]:9" }, json_types = { "number" } },
        add = { json = { "meta.added:true" }, json_types = { "boolean" } }, append = { json = { "meta.tags:x" } },
      }, '{"customers":[{"info":{"phone":1,"name":"a"}},{"info":{"phone":2}},3],"meta":{"old":1},"list":[1,2]}')
      assert.equal('{"customers":[{"info":{"name":"a"}},{"info":{}},3],'
        .. '"meta":{"new":1,"added":true,"tags":["x"]},"list":[1,9]}', text)
    end)

    it("lets only the members stay that are allowed, after all other edits", function()
      assert.equal('{"b":2,"c":"3"}',
        body_of({ add = { json = { "c:3", "d:4" } }, allow = { json = { "b", "c" } } }, '{"a":1,"b":2}'))
      assert.equal("{}", body_of({ allow = { json = {} } }, '{"a":1,"b":2}'))
    end)

    it("edits a body that comes in pieces", function()
      local response = response_to({ add = { json = { "b:2" } } },
        { headers = { ["Content-Type"] = "application/json" }, chunks = { '{"a"', ":", "1}" } })
      assert.same({ a = 1, b = "2" }, json.decode(response.body))
    end)

    it("leaves other types alone", function()
      for _, content_type in ipairs { "text/html", "application/jsonp", "application/problem+json" } do
        local headers = { ["Content-Type"] = content_type }
        assert.equal('{"a":1}', body_of({ remove = { json = { "a" } } }, '{"a":1}', headers))
      end
      assert.equal('{"a":1}', body_of({ remove = { json = { "a" } } }, '{"a":1}', {}))
    end)

    it("leaves what is no object alone", function()
      for _, text in ipairs { "[]", '[{"a":1}]', '"a"', "null", "7", "" } do
        assert.equal(text, body_of({ remove = { json = { "a" } }, add = { json = { "b:1" } } }, text))
      end
    end)

    it("passes a body on as it is when it is no JSON, and says so in the log", function()
      local response, gateway = response_to({ remove = { json = { "a" } } },
        { headers = { ["Content-Type"] = "application/json" }, body = '{"a":1' })
      assert.equal('{"a":1', response.body)
      assert.equal(1, #gateway:log("response body was not edited"))
    end)

    it("asks the service not to compress, whatever the client accepts", function()
      local function accepted(config)
        local _, gateway = response_to(config, nil, { path = "/", headers = { ["Accept-Encoding"] = "gzip" } })
        return gateway:requests()[1].headers["accept-encoding"]
      end
      assert.equal("identity", accepted { remove = { json = { "a" } } })
      assert.equal("identity", accepted { allow = { json = { "a" } } })
      assert.equal("gzip", accepted { add = { headers = { "X-New:1" } } })
      assert.equal("gzip", accepted { replace = { body = "x" } })
    end)

    it("has nothing to do for HEAD", function()
      local response = response_to({ add = { json = { "a:1" } } },
        { headers = { ["Content-Type"] = "application/json" }, body = "{}" }, { method = "HEAD", path = "/" })
      assert.equal(200, response.status)
      assert.equal("", response.body)
    end)
  end)

  it("takes another body, whatever it was", function()
    local response = response_to { replace = { body = '{"message":"later"}' } }
    assert.equal('{"message":"later"}', response.body)
    assert.equal("", response_to { replace = { body = "" } }.body)
  end)

  describe("for some statuses", function()
    local config = {
      add = { headers = { "X-New:1" }, json = { "b:2" }, if_status = { "404", "500-599" } },
      replace = { body = "no", if_status = { "503" } },
    }

    local function answered(status)
      local headers = { ["Content-Type"] = "application/json" }
      local response = response_to(config, { status = status, headers = headers, body = '{"a":1}' })
      return { response.headers["x-new"], response.body }
    end

    it("does each step where it is meant, and nothing elsewhere", function()
      assert.same({ "1", '{"a":1,"b":"2"}' }, answered(404))
      assert.same({ "1", '{"a":1,"b":"2"}' }, answered(500))
      assert.same({ "1", "no" }, answered(503))
      assert.same({ nil, '{"a":1}' }, answered(200))
      assert.same({ nil, '{"a":1}' }, answered(400))
    end)

    it("refuses what is no status and no range", function()
      for _, entry in ipairs { "4xx", "600", "99", "500-400", "404,405", "" } do
        assert.matches("config.add.if_status%[0%]: expected ", refused { add = { if_status = { entry } } })
      end
    end)
  end)

  describe("refuses", function()
    it("what is no path, where paths are meant", function()
      local function at(entry)
        return refused { dots_in_keys = false, remove = { json = { "fine", entry } } }
      end
      assert.matches("config.remove.json%[1%]: expected a name on both sides of each dot", at "a..b")
      assert.matches("config.remove.json%[1%]: expected a name on both sides of each dot", at "a.")
      assert.matches("config.remove.json%[1%]: expected %[%*%], or %[N%] with N from 1, found %[0%]", at "a[0].b")
      assert.matches("config.remove.json%[1%]: expected at most 32 steps", at(("a."):rep(32) .. "b"))
    end)

    it("an entry without a colon", function()
      for _, step in ipairs { "rename", "replace", "add", "append" } do
        for _, part in ipairs { "headers", "json" } do
          assert.matches(("config.%s.%s%%[0%%]: expected name:value, found \"x\""):format(step, part),
            refused { [step] = { [part] = { "x" } } })
        end
      end
    end)

    it("a name that no field can have", function()
      assert.matches("config.add.headers%[0%]: expected a header name before the colon",
        refused { add = { headers = { "X Y:1" } } })
      assert.matches("config.rename.headers%[0%]: expected a header name behind the colon",
        refused { rename = { headers = { "X:Y Z" } } })
    end)

    it("a value that would break the head", function()
      assert.matches("config.add.headers%[0%]: expected a value without control characters",
        refused { add = { headers = { "X:1\r\nY:2" } } })
    end)

    it("a type that JSON does not have", function()
      assert.matches("config.add.json_types%[0%]: expected one of", refused { add = { json_types = { "date" } } })
    end)

    it("types where nothing has one", function()
      assert.matches("config.remove.json_types: unknown field", refused { remove = { json_types = { "string" } } })
    end)
  end)
end)
