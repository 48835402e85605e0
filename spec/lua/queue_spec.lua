-- SPDX-License-Identifier: Apache-2.0
-- The queue that log plugins share, by a plugin that puts each request's path into one.
local spec = require "sluice.spec"

local HANDLER = [[
local http = require "sluice.http"
local queue = require "sluice.queue"
local sender = { version = "VERSION", priority = 1 }
local queues = setmetatable({}, { __mode = "k" })

local function send(context, batch)
  local response, err = http.post(context.url, { body = table.concat(batch, " ") .. context.suffix })
  if not response then return nil, err end
  if response.status == 599 then error("the handler is broken") end
  if response.status == 207 then table.remove(batch, 1) end -- the first of them has arrived
  return response.status == 200, "status " .. response.status
end

function sender.configure(confs)
  for _, conf in ipairs(confs or {}) do
    queues[conf] = queue.open(conf, send, { url = "http://sink.example/", suffix = "SUFFIX" })
  end
end

function sender.log(conf, exchange)
  queues[conf]:add(exchange.request:get_raw_path())
end

return sender
]]

local SCHEMA = [[
local typedefs = require "sluice.typedefs"
return { name = "sender", fields = { { config = { type = "record", fields = {
  { queue = typedefs.queue }, { queue_size = { type = "integer" } }, { flush_timeout = { type = "number" } },
  { batch_span_count = { type = "integer" } }, { batch_flush_delay = { type = "integer" } },
} } } } }
]]

local function code(version, suffix)
  return { sender = { handler = (HANDLER:gsub("VERSION", version or "1"):gsub("SUFFIX", suffix or "")),
    schema = SCHEMA } }
end

describe("a queue", function()
  local gateway

  local function start(params, sink, config)
    config = config or {}
    config.queue = params
    gateway = spec.gateway {
      plugins = { { name = "sender", id = "2f8d4dd7-4bb5-4d2c-8a6a-2f0fb2ea3a0c", config = config } },
      plugins_code = code(), upstreams = { ["sink.example"] = sink or { body = "" }, ["*"] = { body = "hello" } },
    }
    return gateway
  end

  local function bodies()
    local list = {}
    for i, request in ipairs(gateway:requests("sink.example")) do list[i] = request.body end
    return list
  end

  local function get(...)
    for _, path in ipairs { ... } do assert.equal(200, gateway:get(path).status) end
  end

  -- The gateway's own metric, of this plugin.
  local function metric(name)
    local text = gateway:request({ path = "/metrics", listener = "status" }).body
    return tonumber(text:match("\n" .. name .. '{plugin="sender",instance="2f8d4dd7[%x-]+"} (%d+)'))
  end

  it("sends each entry by itself when batches have one", function()
    start {}
    get("/a", "/b", "/c")
    gateway:settle()
    assert.same({ "/a", "/b", "/c" }, bodies())
    assert.equal(3, metric("sluice_queue_sent_total"))
  end)

  it("gathers a batch, and sends it as soon as it is whole", function()
    start { max_batch_size = 3, max_coalescing_delay = 60 }
    get("/a", "/b")
    gateway:advance(1)
    assert.same({}, bodies())
    assert.equal(2, metric("sluice_queue_length"))
    assert.equal(4, metric("sluice_queue_bytes"))
    get("/c", "/d")
    gateway:settle()
    assert.same({ "/a /b /c" }, bodies())
  end)

  it("sends what there is when it has waited long enough", function()
    start { max_batch_size = 1000, max_coalescing_delay = 5 }
    get("/a", "/b")
    gateway:advance(4.9)
    assert.same({}, bodies())
    gateway:advance(0.2)
    assert.same({ "/a /b" }, bodies())
  end)

  it("sends a batch again, later each time, until it is taken", function()
    local at = {}
    start({ initial_retry_delay = 1, max_retry_delay = 4 }, function()
      at[#at + 1] = math.floor(gateway:now() * 10 + 0.5) / 10
      return { status = #at < 6 and 503 or 200 }
    end)
    local began = gateway:now()
    get("/a")
    gateway:advance(60)
    for i = 1, #at do at[i] = math.floor((at[i] - began) * 10 + 0.5) / 10 end
    assert.same({ 0, 1, 3, 7, 11, 15 }, at)
    assert.equal(5, metric("sluice_queue_retries_total"))
    assert.equal(1, metric("sluice_queue_sent_total"))
    assert.equal(0, metric("sluice_queue_length"))
  end)

  it("keeps the order while it tries again", function()
    local answers = { { status = 500 }, { refuse = true }, { status = 200 } }
    start({ initial_retry_delay = 1 }, { answers[1], answers[1], answers[3] })
    get("/a", "/b", "/c")
    gateway:advance(10)
    assert.same({ "/a", "/a", "/a", "/b", "/c" }, bodies())
  end)

  it("sends of a batch again what its handler has left in it, and counts the rest as sent", function()
    start({ max_batch_size = 3, max_retry_time = 1, initial_retry_delay = 2 }, { status = 207 })
    for i = 1, 3 do gateway:get("/" .. i) end
    gateway:advance(3)
    assert.same({ "/1 /2 /3", "/2 /3" }, bodies())
    gateway:advance(1)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    assert.equal("2", text:match('sluice_queue_sent_total{plugin="sender"[^}]*} (%d+)'))
    assert.equal("1", text:match('sluice_queue_dropped_total{plugin="sender"[^}]*} (%d+)'))
  end)

  it("gives a batch up after max_retry_time, counts it and says so", function()
    start({ initial_retry_delay = 1, max_retry_delay = 1, max_retry_time = 5 }, { status = 500 })
    get("/a")
    gateway:advance(30)
    assert.equal(7, #bodies())
    assert.equal(1, metric("sluice_queue_dropped_total"))
    assert.equal(0, metric("sluice_queue_length"))
    assert.matches("given up on after 7 tries: status 500", gateway:log("log entries dropped")[1], 1, true)
    gateway:upstream("sink.example", { body = "" })
    get("/b")
    gateway:settle()
    assert.equal("/b", bodies()[8])
  end)

  it("takes an error of the handler for a failure", function()
    start({ initial_retry_delay = 1 }, { { status = 599 }, { status = 200 } })
    get("/a")
    gateway:advance(2)
    assert.equal(2, #bodies())
    assert.matches("the handler is broken", gateway:log("cannot be sent, trying again")[1])
  end)

  it("drops the oldest entry past max_entries, counts them, and says so now and then", function()
    start({ max_entries = 3, initial_retry_delay = 1 }, { { status = 500 }, { body = "" } })
    get("/1", "/2", "/3", "/4", "/5", "/6")
    assert.equal(3, metric("sluice_queue_length") or 3)
    gateway:advance(10)
    -- /1 was under way.
    assert.same({ "/1", "/1", "/5", "/6" }, bodies())
    assert.equal(3, metric("sluice_queue_dropped_total"))
    assert.equal(1, #gateway:log("log entries dropped"))
  end)

  it("drops the oldest entries past max_bytes, and what is larger than all of it", function()
    start({ max_bytes = 20, initial_retry_delay = 1 }, { { status = 500 }, { body = "" } })
    get("/first", "/second", "/third", "/" .. ("x"):rep(30))
    gateway:advance(10)
    assert.same({ "/first", "/first" }, { bodies()[1], bodies()[2] })
    assert.equal(2, #bodies())
    assert.equal(3, metric("sluice_queue_dropped_total"))
  end)

  it("has one sender at a time, or as many as there are batches", function()
    start({ concurrency_limit = 1 }, { hang = true })
    get("/a", "/b", "/c")
    gateway:settle()
    assert.equal(1, #bodies())
    gateway:close()
    start({ concurrency_limit = -1 }, { hang = true })
    get("/a", "/b", "/c")
    gateway:settle()
    assert.equal(3, #bodies())
  end)

  it("slows no request while its sink is away", function()
    start({ max_batch_size = 10, max_entries = 100 }, { silent = true })
    local began = gateway:now()
    for i = 1, 300 do get("/" .. i) end
    assert.is_true(gateway:now() - began < 0.001)
  end)

  it("loses nothing that fits it while its sink is away for a minute", function()
    start({ max_batch_size = 50, max_entries = 1000 }, { refuse = true })
    for i = 1, 600 do
      get("/" .. i)
      gateway:advance(0.1)
    end
    gateway:upstream("sink.example", { body = "" })
    gateway:advance(60)
    local got = {}
    for path in table.concat(bodies(), " "):gmatch("%S+") do got[#got + 1] = path end
    assert.equal(600, #got)
    for i = 1, 600 do assert.equal("/" .. i, got[i]) end
    assert.is_nil(metric("sluice_queue_dropped_total"))
  end)

  it("keeps what waits when the configuration is loaded anew, unchanged or with other code", function()
    start({ max_batch_size = 10, max_coalescing_delay = 3600 })
    get("/a")
    assert.is_true(gateway:reload { consumers = { { username = "somebody" } } })
    get("/b")
    assert.is_true(gateway:reload { plugins_code = code("2", "!") })
    get("/c")
    gateway:advance(3600)
    assert.same({ "/a /b /c!" }, bodies())
  end)

  it("ends by sending what it has when its instance changed or went", function()
    start({ max_batch_size = 10, max_coalescing_delay = 60 })
    get("/a")
    assert.is_true(gateway:reload { plugins = { { name = "sender", id = "2f8d4dd7-4bb5-4d2c-8a6a-2f0fb2ea3a0c",
      config = { queue = { max_batch_size = 2, max_coalescing_delay = 60 } } } } })
    get("/b", "/c")
    gateway:settle()
    assert.same({ "/b /c" }, bodies())
    get("/d")
    assert.is_true(gateway:reload { plugins = {} })
    gateway:advance(61)
    local all = bodies()
    table.sort(all)
    assert.same({ "/a", "/b /c", "/d" }, all)
  end)

  it("takes Kong's older fields where they are given", function()
    start({}, nil, { queue_size = 3, flush_timeout = 7 })
    get("/a", "/b")
    gateway:advance(6)
    assert.same({}, bodies())
    gateway:advance(2)
    assert.same({ "/a /b" }, bodies())
    gateway:close()
    start({}, nil, { batch_span_count = 2, batch_flush_delay = 100 })
    get("/a", "/b", "/c")
    gateway:settle()
    assert.same({ "/a /b" }, bodies())
  end)
end)
