-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local UUID = "%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x"

-- Logs what the log plugins would write.
local LOGGER = [[
  local logger = { version = "1.0.0", priority = 1 }
  function logger.log(_, exchange)
    require("sluice").log.notice("logged", { id = exchange:serialize().correlation_id })
  end
  return logger
]]

describe("correlation-id", function()
  local gateway

  local function start(config, more)
    gateway = spec.gateway { plugins = { { name = "correlation-id", config = config }, more },
      plugins_code = { logger = LOGGER } }
  end

  -- The id that the service saw.
  local function seen(name)
    local requests = gateway:requests()
    return requests[#requests].headers[name or "kong-request-id"]
  end

  it("gives each request an id of its worker's UUID and a number", function()
    start {}
    gateway:get("/")
    local worker, number = seen():match("^(" .. UUID .. ")#(%d+)$")
    gateway:get("/")
    assert.same({ worker, number + 1 }, { seen():match("^(.*)#"), tonumber(seen():match("#(%d+)$")) })
  end)

  it("gives each a UUID with generator uuid", function()
    start { generator = "uuid" }
    gateway:get("/")
    local first = seen()
    gateway:get("/")
    assert.matches("^" .. UUID .. "$", first)
    assert.matches("^" .. UUID .. "$", seen())
    assert.not_equal(first, seen())
  end)

  it("tells the way a request came with generator tracker", function()
    start { generator = "tracker" }
    local client = gateway:connect()
    local parts = {}
    for i = 1, 2 do
      client:request("/")
      parts[i] = { seen():match("^(.-)%-(%d+)%-(%d+)%-(%d+)%-(%d+)%-(%d+%.%d%d%d)$") }
    end
    assert.same({ parts[1][1], parts[1][2], parts[1][3], parts[1][4] },
      { parts[2][1], parts[2][2], parts[2][3], parts[2][4] })
    assert.same({ "1", "2" }, { parts[1][5], parts[2][5] })
    gateway:get("/")
    assert.equal(parts[2][4] + 1, tonumber(seen():match("^.-%-%d+%-%d+%-(%d+)%-1%-")))
  end)

  it("carries it in the field that it is told", function()
    start { header_name = "X-Trace" }
    gateway:get("/")
    assert.is_string(seen("x-trace"))
    assert.is_nil(seen())
  end)

  it("keeps the id that a client sends, but not an empty one", function()
    start {}
    gateway:get("/", { ["kong-request-id"] = "mine" })
    assert.equal("mine", seen())
    gateway:get("/", { ["kong-request-id"] = "" })
    assert.matches("#%d+$", seen())
  end)

  it("tells the client the id only when told to", function()
    start {}
    assert.is_nil(gateway:get("/").headers["kong-request-id"])
    start { echo_downstream = true }
    local told = gateway:get("/").headers["kong-request-id"]
    assert.equal(seen(), told)
    assert.equal("mine", gateway:get("/", { ["Kong-Request-ID"] = "mine" }).headers["kong-request-id"])
  end)

  it("tells it in place of what the service says", function()
    start { echo_downstream = true }
    gateway:upstream("*", { headers = { ["Kong-Request-ID"] = "theirs" } })
    assert.equal("mine", gateway:get("/", { ["Kong-Request-ID"] = "mine" }).headers["kong-request-id"])
  end)

  it("tells it with answers that are not the service's", function()
    start({ echo_downstream = true }, { name = "request-termination" })
    local response = gateway:get("/")
    assert.equal(503, response.status)
    assert.matches("#%d+$", response.headers["kong-request-id"])
    start { echo_downstream = true }
    gateway:upstream("*", { refuse = true })
    response = gateway:get("/")
    assert.equal(502, response.status)
    assert.matches("#%d+$", response.headers["kong-request-id"])
  end)

  it("tells it where no route matches", function()
    gateway = spec.gateway { routes = { { name = "r", paths = { "/r" } } },
      plugins = { { name = "correlation-id", config = { echo_downstream = true } } } }
    local response = gateway:get("/none")
    assert.equal(404, response.status)
    assert.matches("#%d+$", response.headers["kong-request-id"])
    assert.equal("mine", gateway:get("/none", { ["Kong-Request-ID"] = "mine" }).headers["kong-request-id"])
  end)

  it("writes it into the logs", function()
    start({}, { name = "logger" })
    gateway:get("/", { ["Kong-Request-ID"] = "mine" })
    assert.matches("id=mine", gateway:log("logged")[1])
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "correlation-id", config = config } } })
    end

    it("with a generator that there is not", function()
      assert.matches("config.generator: expected one of uuid, uuid#counter or tracker", problem { generator = "x" },
        1, true)
    end)

    it("with a name that cannot be a field's", function()
      assert.matches("config.header_name: expected a header name", problem { header_name = "a b" }, 1, true)
    end)
  end)
end)
