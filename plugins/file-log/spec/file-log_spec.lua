-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local lfs = require "lfs"
local spec = require "sluice.spec"

describe("file-log", function()
  local directory, path

  before_each(function()
    directory = os.tmpname()
    os.remove(directory)
    lfs.mkdir(directory)
    path = directory .. "/access.log"
  end)

  after_each(function() os.execute(("rm -rf '%s'"):format(directory)) end)

  local function with(config, more)
    config.path = config.path or path
    local options = { plugins = { { name = "file-log", config = config } }, upstreams = { ["*"] = { body = "hello" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    return spec.gateway(options)
  end

  local function lines_of(file)
    local lines = {}
    for line in io.lines(file or path) do lines[#lines + 1] = line end
    return lines
  end

  -- What has been written once the gateway has ended: a helper thread writes, in its own time.
  local function written(gateway)
    gateway:close()
    return lines_of()
  end

  local function refused(config)
    local ok, err = spec.check { plugins = { { name = "file-log", config = config } } }
    assert.is_nil(ok)
    return err
  end

  it("writes a line of JSON for each exchange, in Kong's log format", function()
    local gateway = with {}
    for i = 1, 3 do gateway:get("/" .. i .. "?a=b", { ["X-Number"] = i }) end
    local lines = written(gateway)
    assert.equal(3, #lines)
    for i, line in ipairs(lines) do
      local record = json.decode(line)
      assert.equal("GET", record.request.method)
      assert.equal("/" .. i .. "?a=b", record.request.uri)
      assert.equal(tostring(i), record.request.headers["x-number"])
      assert.equal(200, record.response.status)
      assert.equal("route", record.route.name)
      assert.equal("127.0.0.1", record.client_ip)
      assert.equal("number", type(record.latencies.request))
    end
  end)

  it("adds to a file that is there", function()
    local file = io.open(path, "w")
    file:write("before\n")
    file:close()
    local gateway = with {}
    gateway:get("/")
    local lines = written(gateway)
    assert.equal(2, #lines)
    assert.equal("before", lines[1])
  end)

  it("logs what the gateway answers itself", function()
    local gateway = with({}, { upstreams = { ["*"] = { refuse = true } } })
    gateway:get("/")
    assert.equal(502, json.decode(written(gateway)[1]).response.status)
  end)

  it("writes text as web servers do", function()
    local gateway = with { format = "text" }
    gateway:get("/a?b=c", { ["User-Agent"] = "spec/1", Referer = "http://other.example/" })
    assert.matches('^127%.0%.0%.1 %- %- %[%d%d/%u%l%l/%d%d%d%d:%d%d:%d%d:%d%d %+0000%] "GET /a%?b=c HTTP/1%.1" 200 %d+ '
      .. '"http://other%.example/" "spec/1" %d+ service %x+$', written(gateway)[1])
  end)

  it("names the consumer in text", function()
    local gateway = with({ format = "text" }, {
      plugins = { { name = "who" }, { name = "file-log", config = { path = path, format = "text" } } },
      plugins_code = { who = [[
        return { version = "1", priority = 1000, access = function(_, exchange)
          exchange.client:authenticate(exchange.client:load_consumer("alice", true))
        end }
      ]] },
      consumers = { { username = "alice" } },
    })
    gateway:get("/")
    assert.matches("^127.0.0.1 %- alice %[", written(gateway)[1])
  end)

  it("lets no client forge a line of text", function()
    local gateway = with { format = "text", custom_fields_by_lua = { who = 'return "a\\nb"' } }
    gateway:get('/"x', { ["User-Agent"] = 'a" 200 "b\\' })
    local lines = written(gateway)
    assert.equal(1, #lines)
    assert.matches('"a\\x22 200 \\x22b\\x5C"', lines[1], 1, true)
    assert.matches(' who="a\\x0Ab"', lines[1], 1, true)
  end)

  it("adds fields by Lua, which sees the exchange", function()
    local gateway = with { custom_fields_by_lua = {
      path = "return exchange.request:get_path()",
      ["request.headers.x-secret"] = "return nil",
      argument = "local it = ... return it.request:get_method()",
      ["nested.status"] = "return exchange.response:get_status()",
      kongs = "return kong.request.get_path()",
    } }
    gateway:get("/a", { ["X-Secret"] = "1" })
    local record = json.decode(written(gateway)[1])
    assert.equal("/a", record.path)
    assert.equal("GET", record.argument)
    assert.equal("/a", record.kongs)
    assert.equal(200, record.nested.status)
    assert.is_nil(record.request.headers["x-secret"])
  end)

  it("puts such fields at the end of a text", function()
    local gateway = with { format = "text", custom_fields_by_lua = { ["a.b"] = "return 7", c = "return nil" } }
    gateway:get("/")
    assert.matches(' a%.b="7" c="%-"$', written(gateway)[1])
  end)

  it("says in the log when such code fails, and where; the client has its answer", function()
    local gateway = with { custom_fields_by_lua = { bad = "\nreturn nothing.here" } }
    assert.equal(200, gateway:get("/").status)
    assert.matches("custom_fields_by_lua.bad:2", gateway:log("plugin failed")[1])
  end)

  it("makes the file anew after it was moved away", function()
    local gateway = with {}
    local function get_until_written(file)
      for _ = 1, 200 do
        gateway:get("/")
        gateway:advance(1)
        if lfs.attributes(file, "size") then return true end
      end
    end
    assert.is_true(get_until_written(path))
    os.rename(path, path .. ".1")
    assert.is_true(get_until_written(path))
    gateway:close()
    assert.is_true(#lines_of(path .. ".1") >= 1)
  end)

  it("reopens the file when it is told to", function()
    local gateway = with { reopen = true }
    gateway:get("/")
    assert.equal(1, #written(gateway))
  end)

  it("says when the file cannot be written, and holds nobody up", function()
    local gateway = with { path = directory .. "/none/access.log" }
    assert.equal(200, gateway:get("/").status)
    for _ = 1, 200 do
      gateway:advance(1)
      if #gateway:log("lines for a file were lost") > 0 then break end
    end
    assert.matches("No such file or directory", gateway:log("lines for a file were lost")[1])
  end)

  it("is a door that other plugins do not have", function()
    local gateway = spec.gateway { plugins = { { name = "sneaky" } }, plugins_code = { sneaky = [[
      return { version = "1", priority = 1, access = function()
        require("sluice").file.append("/tmp/never", "line")
      end }
    ]] } }
    assert.equal(500, gateway:get("/").status)
    assert.matches("for plugins under gateway.trusted_plugins", gateway:log("plugin failed")[1])
  end)

  it("refuses a configuration without a path, or with one that is a pattern", function()
    assert.matches("config.path: expected a string, found nothing", refused {})
    assert.matches("config.path: expected a file's path", refused { path = "/tmp/*.log" })
  end)

  it("refuses another format", function()
    assert.matches("config.format: expected one of", refused { path = path, format = "xml" })
  end)

  it("refuses fields whose code is no Lua", function()
    assert.matches("config.custom_fields_by_lua.*expected Lua code %(line 1",
      refused { path = path, custom_fields_by_lua = { a = "return return" } })
  end)
end)
