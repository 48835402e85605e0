-- SPDX-License-Identifier: Apache-2.0
-- What is stored may be of another version, or spoilt. Its bytes are changed here one by one, in the file that the
-- gateway has mapped.
local new = require("proxy-cache.spec.world").new

local in_process = os.getenv("SLUICE_SPEC") == "process" and pending or it

local MARK = "CLS" -- in the number of the format, which an entry begins with
local SPAN = 400   -- bytes from there: the entry, and the tables of its fields
local PAGE, OVERFLOW = 4096, 4 -- of LMDB: a page that holds the beginning of one large value says so in its tenth byte

local function read_all(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- Where entries begin in the file. Old copies of them are among these, but no page that leads to others.
local function entries(text)
  local places, at = {}, 1
  while true do
    at = text:find(MARK, at, true)
    if not at then return places end
    local place = at - 2 -- the number is little-endian, the mark behind its first byte
    local page = place - place % PAGE
    if text:byte(page + 11) == OVERFLOW and place % PAGE + SPAN < PAGE then places[#places + 1] = place end
    at = at + 1
  end
end

-- Puts one byte at a distance from the beginning of every entry. Gives what undoes it.
local function spoil(path, distance, value)
  local text = read_all(path)
  local places, file = entries(text), assert(io.open(path, "r+b"))
  local function put(byte_of)
    for _, place in ipairs(places) do
      file:seek("set", place + distance)
      file:write(byte_of(place + distance))
    end
    file:flush()
  end
  put(function() return string.char(value) end)
  return function() put(function(place) return text:sub(place + 1, place + 1) end) end, file
end

describe("a stored response that is spoilt", function()
  in_process("that cannot be looked for is none, which is told once", function()
    local cache = new({ headers = {}, body = "content" }, { cache_control = false })
    assert(io.open(cache.gateway.world.directory .. "/responses", "w")):close() -- where a folder should be
    for _ = 1, 3 do
      local response, status = cache:get()
      assert.same({ 200, "content", "Bypass" }, { response.status, response.body, status })
    end
    assert.equal(1, #cache.gateway:log("responses cannot be cached"))
    cache:close()
  end)

  in_process("is none, or is served within its bounds; the gateway goes on in any case", function()
    local cache = new({ headers = { ["Content-Type"] = "text/plain", Vary = "X-One, X-Two", ["X-Field"] = "value" },
      body = ("content "):rep(1000) }, { cache_control = false })
    cache:get("/", { ["X-One"] = "1" })
    local path = cache.gateway.world.directory .. "/responses/data.mdb"
    local calls = cache:calls()
    local before = calls
    for distance = 0, SPAN - 1 do
      for _, value in ipairs { 0xff, 0x80, 0 } do
        local undo, file = spoil(path, distance, value)
        local one = cache.gateway:send { path = "/", headers = { ["X-One"] = "1" } }
        one:receive()
        one:close()
        if cache:calls() == calls then undo() end -- else it was stored anew, and pages have changed hands
        calls = cache:calls()
        file:close()
      end
    end
    assert.is_true(cache:calls() - before > 50) -- it was read
    assert.equal(200, cache:get("/", { ["X-One"] = "1" }).status)
    cache:close()
  end)
end)
