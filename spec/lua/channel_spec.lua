-- SPDX-License-Identifier: Apache-2.0
-- Channels, through a plugin that writes what it is told to: /open, /put, /move, /join, /behind and so on.
local cjson = require "cjson"
local spec = require "sluice.spec"

local PLUGIN = [[
local channel = require "sluice.channel"
local json = require "sluice.json"
local tell = { version = "1.0.0", priority = 1 }

local made, fallen = nil, {}

local acts = {}
function acts.open(options) made = channel.new(options) return { ok = made ~= nil } end
function acts.put(it)
  for _ = 1, it.times or 1 do made:put(it.text, it.slot, it.offset, it.key) end
  if not it.quiet then made:flush() end
  return { busy = made:is_busy() }
end
function acts.mark(it) made:mark(it.text) made:flush() return {} end
function acts.move(it) made:move(it.slot, it.offset) return { position = made:position(it.slot) } end
function acts.seats() return { seats = made:seats() } end
function acts.close() made:close() return {} end
function acts.behind(it)
  local answer, positions, key = made:next_behind(it.seconds or 1)
  fallen[#fallen + 1] = answer
  return { fell = answer ~= nil, positions = positions, key = key }
end
function acts.tell(it) return { sent = fallen[#fallen]:send(it.text) } end
function acts.rejoin(it)
  local ok, err = made:join(fallen[#fallen], it.positions, it.key, it.ahead)
  return { ok = ok, err = err }
end
function acts.finish() fallen[#fallen]:finish() return {} end

function tell.access(conf, exchange)
  local act = exchange.request:get_path():match("^/(%w+)")
  local it = json.decode(exchange.request:get_raw_body() or "") or {}
  if acts[act] then exchange.response:exit(200, acts[act](it)) end
  local answer = exchange.response:stream(200, { ["Content-Type"] = "text/event-stream" })
  answer:send(">")
  local ok, err = made:join(answer, it.positions, it.key, it.ahead)
  if not ok then answer:send(err) end
  if it.fails then error("on purpose") end
end
return tell
]]

describe("channel", function()
  local gateway

  local function tell(act, it)
    local response = gateway:request { method = "POST", path = "/" .. act, body = cjson.encode(it or {}) }
    assert.equal(200, response.status, response.body)
    return cjson.decode(response.body)
  end

  local function join(it)
    local client = gateway:connect()
    client:send { method = "POST", path = "/join", body = cjson.encode(it or {}) }
    return client
  end

  local function seen(client)
    return (select(2, client:partial()))
  end

  before_each(function()
    gateway = spec.gateway { plugins = { { name = "tell" } }, plugins_code = { tell = PLUGIN } }
    tell("open", { labels = { "0/", "1/" }, positions = { 5, 7 }, messages = 4 })
  end)

  it("sends what is put to all, with an id that tells the last of each slot", function()
    local one, two = join(), join()
    tell("put", { text = "data: a\n\n", slot = 1, offset = 5 })
    tell("put", { text = "data: b\n\n", slot = 2, offset = 9 })
    for _, client in ipairs { one, two } do
      assert.equal(">id: 0/5,1/6\ndata: a\n\nid: 1/9,0/5\ndata: b\n\n", seen(client))
    end
    assert.equal(2, tell("seats").seats)
  end)

  it("begins behind what was put before, without positions", function()
    tell("put", { text = "old\n\n", slot = 1, offset = 5 })
    assert.equal(">", seen(join()))
  end)

  it("sends messages at no position to everybody, without an id unless it is a mark", function()
    local client = join { key = "k" }
    tell("put", { text = ":\n\n" })
    tell("move", { slot = 1, offset = 8 })
    tell("mark", { text = "\n" })
    assert.equal(">:\n\nid: 0/7,1/6\n\n", seen(client))
  end)

  it("goes on from positions that lie in the window, with ids of its own until it is level", function()
    tell("put", { text = "data: a\n\n", slot = 1, offset = 5 })
    tell("put", { text = "data: b\n\n", slot = 2, offset = 7 })
    tell("put", { text = "data: c\n\n", slot = 1, offset = 6 })
    local client = join { positions = { 6, 7 } }
    assert.equal(">id: 1/7,0/5\ndata: b\n\nid: 0/6,1/7\ndata: c\n\n", seen(client))
    -- It has had a record of the second slot that comes before one of the first here.
    local other = join { positions = { 5, 8 } }
    assert.equal(">id: 0/5,1/7\ndata: a\n\nid: 0/6,1/7\ndata: c\n\n", seen(other))
    tell("put", { text = "data: d\n\n", slot = 2, offset = 8 })
    assert.matches("\n\nid: 1/8,0/6\ndata: d\n\n$", seen(other))
  end)

  it("skips what one has had that was ahead of it", function()
    local client = join { positions = { 7, 7 }, ahead = true }
    for offset = 5, 7 do tell("put", { text = offset .. "\n\n", slot = 1, offset = offset }) end
    assert.equal(">id: 0/7,1/6\n7\n\n", seen(client))
    assert.equal(">behind", seen(join { positions = { 99, 7 } }))
  end)

  it("tells who wants what has left the window", function()
    for offset = 5, 9 do tell("put", { text = offset .. "\n\n", slot = 1, offset = offset }) end
    assert.equal(">behind", seen(join { positions = { 5, 7 } }))
    assert.equal(">id: 0/6,1/6\n6\n\nid: 0/7,1/6\n7\n\nid: 0/8,1/6\n8\n\nid: 0/9,1/6\n9\n\n",
      seen(join { positions = { 6, 7 } }))
  end)

  it("sends those with a key the records of that key alone", function()
    local client, whole = join { key = "k" }, join()
    tell("put", { text = "a\n\n", slot = 1, offset = 5, key = "k" })
    tell("put", { text = "b\n\n", slot = 1, offset = 6, key = "x" })
    tell("put", { text = "c\n\n", slot = 1, offset = 7 })
    tell("put", { text = "d\n\n", slot = 1, offset = 8, key = "k" })
    assert.equal(">id: 0/5,1/6\na\n\nid: 0/8,1/6\nd\n\n", seen(client))
    assert.matches("b\n\nid: 0/7,1/6\nc\n\n", seen(whole))
  end)

  it("gives back who does not take its messages, with what it has had, and no other waits for it", function()
    local slow, quick = join { key = "k" }, join()
    slow:pause()
    local big = ("x"):rep(200 * 1024) .. "\n\n"
    for offset = 5, 14 do tell("put", { text = big, slot = 1, offset = offset, key = "k" }) end
    assert.is_truthy(seen(quick):find("id: 0/14,1/6\n", 1, true))
    slow:resume()
    local fallen = tell("behind")
    assert.is_true(fallen.fell)
    assert.equal("k", fallen.key)
    assert.equal(7, fallen.positions[2])
    local had = fallen.positions[1]
    assert.is_true(had > 5 and had < 11, tostring(had))
    assert.is_truthy(seen(slow):find(("id: 0/%d,1/6\n"):format(had - 1), 1, true))
    assert.is_nil(seen(slow):find(("id: 0/%d,1/6\n"):format(had), 1, true))
    assert.is_true(tell("tell", { text = "caught up\n\n" }).sent)
    assert.same({ err = "behind" }, tell("rejoin", { positions = { had, 7 } }))
    assert.is_true(tell("rejoin", { positions = { 15, 7 } }).ok)
    tell("put", { text = "z\n\n", slot = 2, offset = 7, key = "k" })
    assert.matches("caught up\n\nid: 1/7,0/14\nz\n\n$", seen(slow))
  end)

  it("ends an answer that was given back, when it is told to", function()
    local slow = join()
    slow:pause()
    for offset = 5, 14 do tell("put", { text = ("x"):rep(200 * 1024), slot = 1, offset = offset }) end
    slow:resume()
    assert.is_true(tell("behind").fell)
    tell("finish")
    assert.equal(200, slow:receive().status)
    assert.equal(0, tell("seats").seats)
  end)

  it("drops what it holds when a log has been cut", function()
    tell("put", { text = "a\n\n", slot = 1, offset = 5 })
    assert.equal(2, tell("move", { slot = 1, offset = 2 }).position)
    assert.equal(">behind", seen(join { positions = { 1, 7 } }))
    local client = join { positions = { 2, 7 } }
    tell("put", { text = "b\n\n", slot = 1, offset = 2 })
    assert.equal(">id: 0/2,1/6\nb\n\n", seen(client))
  end)

  it("ends all answers behind what was put, when it is closed", function()
    local client = join()
    tell("put", { text = "last\n\n", quiet = true })
    tell("close")
    assert.equal(">last\n\n", client:receive().body)
    assert.is_nil(tell("seats").seats)
    assert.equal(">ended", join():receive().body)
  end)

  it("forgets clients that leave", function()
    local client, other = join(), join()
    client:close()
    assert.equal(1, tell("seats").seats)
    tell("put", { text = "a", slot = 1, offset = 5 })
    assert.equal(">id: 0/5,1/6\na", seen(other))
  end)

  it("breaks the answer off when its plugin fails behind the join", function()
    local client = join { fails = true }
    assert.is_true(client:is_closed())
    assert.equal(0, tell("seats").seats)
  end)

  it("leaves plugins of phase log what they want to know", function()
    gateway = spec.gateway { plugins = { { name = "tell" }, { name = "seen" } },
      plugins_code = { tell = PLUGIN, seen = [[
      return { version = "1", priority = 9,
        rewrite = function(conf, exchange) exchange.ctx.since = "kept" end,
        access = function(conf, exchange) exchange.ctx.since = "kept" end,
        log = function(conf, exchange)
          require("sluice").log.notice("seen", { type = exchange.response:get_header("content-type"),
            since = exchange.ctx.since, who = exchange.request:get_header("x-who"), size = exchange.response:get_size(),
            path = exchange.request:get_path(), status = exchange.response:get_status() })
        end } ]] } }
    tell("open", { labels = { "0/" }, positions = { 0 } })
    local client = gateway:connect()
    client:send { method = "POST", path = "/join", body = "{}", headers = { ["X-Who"] = "me" } }
    tell("put", { text = "a\n\n", slot = 1, offset = 0 })
    assert.equal(">id: 0/0\na\n\n", seen(client))
    client:close()
    local line = gateway:log("path=/join")[1]
    for _, fact in ipairs { "type=text/event-stream", "since=kept", "who=me", "status=200" } do
      assert.matches(fact, type(line) == "table" and line.text or line, 1, true)
    end
  end)

  it("sends many messages to one seat in turns", function()
    tell("open", { labels = { "0/" }, positions = { 0 }, messages = 1000, ids = false })
    for offset = 0, 299 do tell("put", { text = "m", slot = 1, offset = offset, quiet = true }) end
    assert.equal(">" .. ("m"):rep(300), seen(join { positions = { 0 } }))
  end)

  it("keeps messages larger than a chunk", function()
    local client = join()
    local text = ("0123456789"):rep(30000)
    tell("put", { text = text, slot = 1, offset = 5 })
    assert.is_true(seen(client) == ">id: 0/5,1/6\n" .. text)
  end)
end)
