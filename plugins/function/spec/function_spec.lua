-- SPDX-License-Identifier: Apache-2.0
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local spec = require "sluice.spec"

describe("function", function()
  local gateway, folder

  before_each(function()
    folder = posix.temporary_directory()
    os.execute(("mkdir -p '%s/functions/deep'"):format(folder))
  end)
  after_each(function() process.remove(folder) end)

  local function write(name, text)
    process.write_file(folder .. "/functions/" .. name, text)
  end

  local function options(config, extra)
    config = config or {}
    if not config.file then config.directory = config.directory or folder .. "/functions" end
    local all = { routes = { { name = "fn", paths = { "/fn" } } },
      plugins = { { name = "function", config = config } } }
    for name, value in pairs(extra or {}) do
      if name == "plugins" then
        for _, plugin in ipairs(value) do table.insert(all.plugins, plugin) end
      else
        all[name] = value
      end
    end
    return all
  end

  local function start(files, config, extra)
    for name, text in pairs(files) do write(name, text) end
    gateway = spec.gateway(options(config, extra))
  end

  describe("answers by the path", function()
    before_each(function()
      start { ["hello.lua"] = 'return function() return "hello" end',
        ["index.lua"] = 'return function() return "index" end',
        ["deep/index.lua"] = 'return function() return "deep index" end',
        ["deep/er.lua"] = 'return function() return "deeper" end', [".hidden.lua"] = "return function() end",
        ["readme.txt"] = "no function" }
    end)

    for path, body in pairs { ["/fn/hello"] = "hello", ["/fn/hello/"] = "hello", ["/fn"] = "index",
      ["/fn/"] = "index", ["/fn/deep"] = "deep index", ["/fn/deep/er"] = "deeper", ["/fn/x/../hello"] = "hello" } do
      it(path, function()
        local response = gateway:get(path)
        assert.same({ 200, body }, { response.status, response.body })
      end)
    end

    for _, path in ipairs { "/fn/nothing", "/fn/readme.txt", "/fn/.hidden", "/fn/hello.lua", "/fn/%2e%2e/hello" } do
      it("404 for " .. path, function()
        assert.equal(404, gateway:get(path).status)
      end)
    end
  end)

  it("answers for all paths of a route with one file", function()
    start({ ["one.lua"] = "return function(exchange) return exchange.request:get_path() end" },
      { file = folder .. "/functions/one.lua" })
    assert.equal("/fn/any/where", gateway:get("/fn/any/where").body)
  end)

  describe("gives what the function gives:", function()
    local function given(text, method)
      start { ["f.lua"] = "return function(exchange) " .. text .. " end" }
      return gateway:request { path = "/fn/f", method = method or "GET", body = method == "POST" and "abc" or nil }
    end

    it("a table as JSON", function()
      local response = given "return { n = 1, list = { 1, 2 } }"
      assert.same({ n = 1, list = { 1, 2 } }, response.json)
      assert.equal("application/json; charset=utf-8", response.headers["content-type"])
    end)

    it("status, body and fields", function()
      local response = given 'return 201, "made", { ["X-A"] = "1" }'
      assert.same({ 201, "made", "1" }, { response.status, response.body, response.headers["x-a"] })
    end)

    it("nothing", function()
      assert.same({ 204, "" }, { given("").status, gateway:get("/fn/f").body })
    end)

    it("what it has answered itself", function()
      local response = given 'exchange.response:exit(418, "teapot"); return "not this"'
      assert.same({ 418, "teapot" }, { response.status, response.body })
    end)

    it("what it reads of the request", function()
      assert.equal("POST abc", given('return exchange.request:get_method() .. " " .. exchange.request:get_raw_body()',
        "POST").body)
    end)
  end)

  it("takes functions by method", function()
    start { ["f.lua"] = [[return {
      GET = function() return "got" end, POST = function() return 201, "made" end }]] }
    assert.equal("got", gateway:get("/fn/f").body)
    assert.equal(201, gateway:post("/fn/f", "").status)
    assert.same({ 200, "" }, { gateway:head("/fn/f").status, gateway:head("/fn/f").body })
    local response = gateway:delete("/fn/f")
    assert.same({ 405, "GET, HEAD, POST" }, { response.status, response.headers.allow })
  end)

  it("can wait, and call others", function()
    start({ ["f.lua"] = [[
      local sluice = require "sluice"
      return function()
        sluice.sleep(1)
        return assert(sluice.http.get("http://other.example/")).body
      end]] }, nil, { upstreams = { ["other.example"] = { body = "other" } } })
    assert.equal("other", gateway:get("/fn/f").body)
  end)

  it("keeps its upvalues from request to request", function()
    start { ["f.lua"] = "local n = 0 return function() n = n + 1 return tostring(n) end" }
    gateway:get("/fn/f")
    assert.equal("2", gateway:get("/fn/f").body)
  end)

  it("is loaded anew where its file has changed, and only there", function()
    start { ["a.lua"] = "local n = 0 return function() n = n + 1 return 'a' .. n end",
      ["b.lua"] = "local n = 0 return function() n = n + 1 return 'b' .. n end" }
    assert.same({ "a1", "b1" }, { gateway:get("/fn/a").body, gateway:get("/fn/b").body })
    write("a.lua", "local n = 10 return function() n = n + 1 return 'a' .. n end")
    write("c.lua", "return function() return 'c' end")
    assert(gateway:reload(options()))
    assert.same({ "a11", "b2", "c" }, { gateway:get("/fn/a").body, gateway:get("/fn/b").body,
      gateway:get("/fn/c").body })
  end)

  it("goes on as it was where a changed file is wrong", function()
    start { ["a.lua"] = "return function() return 'fine' end" }
    write("a.lua", "return function( return 1 end")
    local ok, err = gateway:reload(options())
    assert.is_nil(ok)
    assert.matches("functions/a.lua:1: ", err, 1, true)
    assert.equal("fine", gateway:get("/fn/a").body)
  end)

  describe("that fails", function()
    it("answers 500 with a request id, and tells file and line in the log", function()
      start { ["f.lua"] = 'return function()\n  local x = nil\n  return x.y\nend' }
      local response = gateway:get("/fn/f")
      assert.equal(500, response.status)
      assert.is_string(response.json.request_id)
      assert.equal(1, #gateway:log("function failed"))
      assert.equal(1, #gateway:log("functions/f.lua:3"))
      assert.equal(1, #gateway:log(response.json.request_id))
    end)

    it("is stopped when it never ends", function()
      start({ ["f.lua"] = "return function() while true do end end" }, nil, { gateway = { plugin_cpu_budget_ms = 50 } })
      assert.equal(500, gateway:get("/fn/f").status)
      assert.equal(1, #gateway:log("stopped: passed its CPU budget of 50 ms"))
    end)

    it("is stopped when it takes too much memory", function()
      start({ ["f.lua"] = [[return function()
        local list = {}
        for i = 1, 1e9 do list[i] = ("x"):rep(1000) .. i end
      end]] }, { memory_limit = 20 }, { gateway = { plugin_cpu_budget_ms = 5000 } })
      assert.equal(500, gateway:get("/fn/f").status)
      assert.equal(1, #gateway:log("stopped: passed its memory limit"))
      assert.equal(500, gateway:get("/fn/f").status)
    end)

    it("is stopped so behind a wait, too", function()
      start({ ["f.lua"] = [[return function()
        require("sluice").sleep(0.1)
        local list = {}
        for i = 1, 1e9 do list[i] = ("x"):rep(1000) .. i end
      end]] }, { memory_limit = 20 }, { gateway = { plugin_cpu_budget_ms = 5000 } })
      assert.equal(500, gateway:get("/fn/f").status)
      assert.equal(1, #gateway:log("stopped: passed its memory limit"))
    end)

    it("answers 504 when it waits for too long, whatever it says later", function()
      start({ ["f.lua"] = [[return function(exchange)
        require("sluice").sleep(5)
        exchange.response:exit(200, "late")
      end]] }, { timeout = 2000 })
      local began = gateway:now()
      assert.equal(504, gateway:get("/fn/f").status)
      assert.is_true(gateway:now() - began < 2.5)
      assert.equal(1, #gateway:log("function timed out"))
      gateway:advance(10)
      assert.equal(0, #gateway:log("plugin failed"))
    end)

    it("cannot reach what plugins cannot reach", function()
      start { ["f.lua"] = "return function() return io.open('/etc/passwd'):read('*a') end" }
      assert.equal(500, gateway:get("/fn/f").status)
      assert.equal(1, #gateway:log("undefined global 'io'"))
    end)
  end)

  it("runs so many at once, and tells the others 503", function()
    start({ ["f.lua"] = "return function() require('sluice').sleep(3) return 'slept' end" }, { max_in_flight = 2 })
    local first, second = gateway:send { path = "/fn/f" }, gateway:send { path = "/fn/f" }
    assert.equal(503, gateway:get("/fn/f").status)
    assert.same({ 200, 200 }, { first:receive().status, second:receive().status })
    assert.equal(200, gateway:get("/fn/f").status)
  end)

  it("counts calls, errors and time-outs", function()
    start({ ["counted.lua"] = [[return function(exchange)
      local what = exchange.request:get_query_arg("do")
      if what == "fail" then error("no") end
      if what == "sleep" then require("sluice").sleep(5) end
      return "ok"
    end]] }, { timeout = 1000 }, { plugins = { { name = "prometheus" } } })
    for _, what in ipairs { "", "", "fail", "sleep" } do gateway:get("/fn/counted?do=" .. what) end
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    for outcome, count in pairs { ok = 2, error = 1, timeout = 1 } do
      assert.matches(('sluice_function_calls_total{function="functions/counted.lua",outcome="%s"} %d'):format(outcome,
        count), text, 1, true)
    end
    assert.matches('sluice_function_seconds_count{function="functions/counted.lua"} 4', text, 1, true)
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check { routes = { { name = "fn", paths = { "/fn" } } },
        plugins = { { name = "function", config = config } } })
    end

    it("files that are no Lua, with file and line", function()
      write("bad.lua", "return function()\n  x = = 1\nend")
      assert.matches("functions/bad.lua:2: ", problem { directory = folder .. "/functions" }, 1, true)
    end)

    it("files and folders that there are not", function()
      assert.matches("config.directory: .*there is no such folder", problem { directory = folder .. "/none" })
      assert.matches("config.file: .*No such file", problem { file = folder .. "/none.lua" })
    end)

    it("both, and neither", function()
      assert.matches("expected exactly one of directory or file", problem {}, 1, true)
      assert.matches("expected exactly one of directory or file", problem { directory = "a", file = "b" }, 1, true)
    end)

    it("a file that gives no function: the generation does not go live", function()
      start { ["a.lua"] = "return function() return 'fine' end" }
      write("b.lua", "return 7")
      local ok, err = gateway:reload(options())
      assert.is_nil(ok)
      assert.matches("b.lua: expected a function or a table of functions by method, found a number", err, 1,
        true)
      assert.equal("fine", gateway:get("/fn/a").body)
    end)
  end)
end)
