-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local BODY = ("0123456789"):rep(30)

describe("fault-injection", function()
  local gateway

  local function start(config, extra)
    local options = { plugins = { { name = "fault-injection", config = config } },
      upstreams = { ["service.example"] = function(request)
        if request.path == "/chunks" then return { chunks = { "aaaa", "bbbb", "cccc" } } end
        return { status = request.path == "/404" and 404 or 200, body = BODY, headers = { ETag = '"x"' } }
      end } }
    for name, value in pairs(extra or {}) do
      if name == "plugins" then
        for _, plugin in ipairs(value) do table.insert(options.plugins, plugin) end
      else
        options[name] = value
      end
    end
    gateway = spec.gateway(options)
  end

  local function share_of(path, is_struck)
    local found = 0
    for _ = 1, 200 do found = found + (is_struck(gateway:get(path)) and 1 or 0) end
    return found
  end

  describe("that delays", function()
    it("lets requests wait", function()
      start { delay = { duration = 2.5 } }
      local pending = gateway:send { path = "/" }
      gateway:advance(2.4)
      assert.is_nil(pending:received())
      assert.equal(0, #gateway:requests())
      gateway:advance(0.2)
      assert.equal(200, pending:receive().status)
    end)

    it("lets them wait longer by up to its jitter", function()
      start { delay = { duration = 1, jitter = 2 } }
      local least, most = math.huge, 0
      for _ = 1, 30 do
        local began = gateway:now()
        gateway:get("/")
        local took = gateway:now() - began
        least, most = math.min(least, took), math.max(most, took)
      end
      assert.is_true(least >= 1 and least < 1.6 and most > 2.2 and most <= 3.1, least .. " " .. most)
    end)

    it("holds nobody who leaves", function()
      start { delay = { duration = 60 } }
      local connection = gateway:connect()
      connection:send { path = "/" }
      connection:close()
      gateway:advance(61)
      assert.equal(0, #gateway:requests())
    end)
  end)

  describe("that aborts", function()
    it("answers with its status and calls no service", function()
      start { abort = { http_status = 418 } }
      local response = gateway:get("/")
      assert.same({ 418, "" }, { response.status, response.body })
      assert.equal(0, #gateway:requests())
    end)

    it("answers with its body and fields", function()
      start { abort = { http_status = 503, body = "down", headers = { ["Retry-After"] = "5" } } }
      local response = gateway:get("/")
      assert.same({ 503, "down", "5" }, { response.status, response.body, response.headers["retry-after"] })
    end)

    it("delays first", function()
      start { abort = { http_status = 503 }, delay = { duration = 3 } }
      local began = gateway:now()
      assert.equal(503, gateway:get("/").status)
      assert.is_true(gateway:now() - began >= 3)
    end)

    it("strikes its share", function()
      start { abort = { http_status = 503, percentage = 25 } }
      local found = share_of("/", function(response) return response.status == 503 end)
      assert.is_true(found > 25 and found < 80, found)
      start { abort = { http_status = 503, percentage = 0 } }
      assert.equal(0, share_of("/", function(response) return response.status == 503 end))
    end)

    it("strikes those that an expression holds for", function()
      start { abort = { http_status = 503, match = 'http.headers.x_fault == "abort"' } }
      assert.equal(200, gateway:get("/").status)
      assert.equal(503, gateway:get("/", { ["X-Fault"] = "abort" }).status)
    end)
  end)

  describe("that resets", function()
    it("breaks the connection without a response", function()
      start { reset = {} }
      local connection = gateway:connect()
      local response = connection:request { path = "/" }
      assert.is_nil(response)
      assert.is_true(connection:is_closed())
      assert.equal(0, #gateway:requests())
    end)

    it("breaks it in the middle of the body", function()
      start { reset = { after_bytes = 6 } }
      local connection = gateway:connect()
      assert.is_nil((connection:request { path = "/chunks" }))
      local head, content = connection:partial()
      assert.same({ 200, "aaaabb" }, { head.status, content })
      assert.is_true(connection:is_closed())
    end)

    it("breaks it before the body", function()
      start { reset = { after_bytes = 0 } }
      local connection = gateway:connect()
      assert.is_nil((connection:request { path = "/chunks" }))
      local head, content = connection:partial()
      assert.same({ 200, "" }, { head.status, content or "" })
    end)

    it("leaves a body alone that is no longer", function()
      start { reset = { after_bytes = 12 } }
      assert.equal("aaaabbbbcccc", gateway:get("/chunks").body)
    end)

    it("breaks an answer of the gateway off whole", function()
      start({ reset = { after_bytes = 3 } }, { plugins = { { name = "request-termination",
        config = { status_code = 403, message = "no" } } } })
      assert.is_nil((gateway:connect():request { path = "/" }))
    end)

    it("strikes those that an expression holds for, the response included", function()
      start { reset = { after_bytes = 1, match = "response.status == 404" } }
      assert.equal(200, gateway:get("/").status)
      assert.is_nil((gateway:connect():request { path = "/404" }))
    end)
  end)

  describe("that truncates", function()
    it("ends the body early, as if it were whole", function()
      start { truncate = { after_bytes = 6 } }
      assert.equal("aaaabb", gateway:get("/chunks").body)
      assert.equal("012345", gateway:get("/").body)
      start { truncate = { after_bytes = 0 } }
      assert.equal("", gateway:get("/").body)
    end)

    it("leaves a shorter one alone", function()
      start { truncate = { after_bytes = 1000 } }
      assert.equal(BODY, gateway:get("/").body)
    end)
  end)

  describe("that corrupts", function()
    local function differences(body)
      assert.equal(#BODY, #body)
      local found = 0
      for i = 1, #BODY do found = found + (BODY:byte(i) ~= body:byte(i) and 1 or 0) end
      return found
    end

    it("changes one byte of so many", function()
      start { corrupt = { every_bytes = 10 } }
      local found = differences(gateway:get("/").body)
      assert.is_true(found >= 10 and found <= 80, found)
    end)

    it("changes every byte", function()
      start { corrupt = { every_bytes = 1 } }
      assert.equal(#BODY, differences(gateway:get("/").body))
    end)

    it("goes on over chunks", function()
      start { corrupt = { every_bytes = 1 } }
      local body = gateway:get("/chunks").body
      assert.equal(12, #body)
      assert.is_nil(body:find("[abc]"))
    end)

    it("goes with truncation", function()
      start { corrupt = { every_bytes = 1 }, truncate = { after_bytes = 5 } }
      local body = gateway:get("/chunks").body
      assert.equal(5, #body)
      assert.is_nil(body:find("a", 1, true))
    end)
  end)

  it("names its faults in the response and in the log", function()
    start({ delay = { duration = 1 }, truncate = { after_bytes = 1 }, response_header = "X-Faults" }, {
      plugins = { { name = "file-log", config = { path = "/dev/null" } }, { name = "post-function", config = { log = {
        [[require("sluice").log.notice("faults " .. tostring(exchange:serialize().faults))]] } } } } })
    assert.equal("delay, truncate", gateway:get("/").headers["x-faults"])
    assert.equal(1, #gateway:log("faults delay, truncate"))
  end)

  it("leaves others without a mark", function()
    start { abort = { http_status = 503, match = 'http.path == "/a"' }, response_header = "X-Faults" }
    assert.is_nil(gateway:get("/").headers["x-faults"])
    assert.equal("abort", gateway:get("/a").headers["x-faults"])
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "fault-injection", config = config } } })
    end

    it("to do nothing", function()
      assert.matches("expected at least one of delay, abort, reset, truncate or corrupt", problem {}, 1, true)
    end)

    it("times, statuses and shares out of bounds", function()
      assert.matches("config.delay.duration: expected a number of seconds above 0",
        problem { delay = { duration = 0 } }, 1, true)
      assert.matches("config.delay.duration: expected a number, found nothing", problem { delay = {} }, 1, true)
      assert.matches("config.abort.http_status: expected an integer from 200 to 599",
        problem { abort = { http_status = 100 } }, 1, true)
      assert.matches("config.abort.percentage: expected a number from 0 to 100",
        problem { abort = { http_status = 500, percentage = 101 } }, 1, true)
      assert.matches("config.truncate.after_bytes: expected an integer, found nothing", problem { truncate = {} }, 1,
        true)
    end)

    it("an expression on what is not known yet", function()
      assert.matches("config.delay.match: expected an expression on the request (response.status is known too late)",
        problem { delay = { duration = 1, match = "response.status == 200" } }, 1, true)
      assert.matches("expected an expression on the request (response.status is known too late)",
        problem { reset = { match = "response.status == 200" } }, 1, true)
    end)
  end)
end)
