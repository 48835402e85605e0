-- SPDX-License-Identifier: Apache-2.0
-- The servers are ours: a UDP socket that answers from a table, pumped by turns with the loop of the resolver.
local ffi = require "ffi"
local bit = require "bit"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("dns.h")

local registry = debug.getregistry()
if not registry["sluice.spec.core.dns"] then
  registry["sluice.spec.core.dns"] = true
  ffi.cdef [[
    struct ev_loop *sys_ev_loop_new(unsigned) __asm__("ev_loop_new");
    void sys_ev_loop_destroy(struct ev_loop *) __asm__("ev_loop_destroy");
    int sys_ev_run(struct ev_loop *, int) __asm__("ev_run");
    long sys_recvfrom(int, void *, size_t, int, void *, uint32_t *) __asm__("recvfrom");
    long sys_sendto(int, const void *, size_t, int, const void *, uint32_t) __asm__("sendto");
  ]]
end

local SECOND = 1000000
local A, AAAA, SRV, CNAME = 1, 28, 33, 5
local buffer = ffi.new("uint8_t[?]", 4096)

-- ---- A name server ----

local function u16(n)
  return string.char(math.floor(n / 256) % 256, n % 256)
end

local function u32(n)
  return u16(math.floor(n / 65536)) .. u16(n % 65536)
end

local function labels(name)
  return name:gsub("[^.]+%.?", function(label)
    label = label:gsub("%.$", "")
    return string.char(#label) .. label
  end) .. "\0"
end

local data = {
  [A] = function(text)
    local a, b, c, d = text:match("(%d+)%.(%d+)%.(%d+)%.(%d+)")
    return string.char(a, b, c, d)
  end,
  [AAAA] = function(text) return ("\0"):rep(15) .. string.char(tonumber(text:match("::(%d+)"))) end,
  [SRV] = function(srv) return u16(srv[1]) .. u16(srv[2]) .. u16(srv[3]) .. labels(srv[4]) end,
  [CNAME] = labels,
}

local server = {}
server.__index = server

local function serve()
  local self = setmetatable({ records = {}, asked = {}, silent = false }, server)
  self.fd = posix.C.sys_socket(posix.AF_INET, 2 + 2048, 0) -- SOCK_DGRAM | SOCK_NONBLOCK
  local name, len = posix.address("127.0.0.1", 0)
  assert(posix.C.sys_bind(self.fd, name, len) == 0)
  posix.C.sys_getsockname(self.fd, name, ffi.new("uint32_t[1]", len))
  self.port = bit.rshift(bit.bswap(name.port), 16)
  return self
end

-- records: { { type, data, ttl }, ... }; without any: no such name; the number of an error: that.
function server:set(name, records)
  self.records[name] = records
end

local function question(packet)
  local parts, at = {}, 13
  while packet:byte(at) ~= 0 do
    local len = packet:byte(at)
    parts[#parts + 1] = packet:sub(at + 1, at + len)
    at = at + len + 1
  end
  return table.concat(parts, "."):lower(), packet:byte(at + 2), packet:sub(13, at + 4)
end

function server:reply(packet)
  local name, kind, asked = question(packet)
  self.asked[#self.asked + 1] = name .. "/" .. kind
  if self.silent then return end
  local records = self.records[name]
  local code = type(records) == "number" and records or records and 0 or 3
  local answers, count = "", 0
  for _, record in ipairs(code == 0 and records or {}) do
    if record[1] == kind or record[1] == CNAME then
      local rdata = data[record[1]](record[2])
      answers = answers .. "\192\12" .. u16(record[1]) .. u16(1) .. u32(record[3] or 60) .. u16(#rdata) .. rdata
      count = count + 1
    end
  end
  return packet:sub(1, 2) .. u16(0x8180 + code) .. u16(1) .. u16(count) .. u16(0) .. u16(0) .. asked .. answers
end

function server:pump()
  local from, len = posix.address("0.0.0.0", 0)
  local size = ffi.new("uint32_t[1]", len)
  while true do
    local n = tonumber(posix.C.sys_recvfrom(self.fd, buffer, 4096, 0, from, size))
    if n < 0 then return end
    local reply = self:reply(ffi.string(buffer, n))
    if reply then posix.C.sys_sendto(self.fd, reply, #reply, 0, from, size[0]) end
  end
end

-- ---- A resolver on a loop of its own, with a clock that the spec moves ----

local failure = ffi.new("struct error")
local loop, dns, names, on_done, told, queries

local function start(options)
  options = options or {}
  options.servers = options.servers or "127.0.0.1:" .. names.port
  options.hosts_file = options.hosts_file or "/nonexistent"
  dns = C.dns_new(loop, ffi.new("struct dns_options", options), failure)
  assert(dns ~= nil, ffi.string(failure.text))
end

local function turn()
  C.sys_ev_run(loop.ev, 1) -- EVRUN_NOWAIT
  C.timers_run(loop.timers, loop.clock.mono_us)
  names:pump()
end

local function address(a)
  local text = a.family == 4 and ("%d.%d.%d.%d"):format(a.bytes[0], a.bytes[1], a.bytes[2], a.bytes[3])
    or "::" .. a.bytes[15]
  return a.port ~= 0 and ("%s:%d/%d/%d"):format(text, a.port, a.priority, a.weight) or text
end

local function answer(query)
  if tonumber(query.error.code) ~= 0 then return { error = ffi.string(query.error.text) } end
  local list = { stale = query.stale or nil, ttl = query.ttl_s }
  for i = 0, query.count - 1 do list[i + 1] = address(query.addresses[i]) end
  return list
end

-- The query, and the answer where it came at once.
local function ask(name, kind)
  local query = ffi.new("struct dns_query")
  query.on_done = on_done
  queries[#queries + 1] = query
  local status = C.dns_resolve(dns, ffi.new("struct slice", ffi.cast("const char *", name), #name),
    kind or C.DNS_ADDRESS, query)
  return query, status == C.DNS_READY and answer(query) or nil
end

local function key(query)
  return tonumber(ffi.cast("intptr_t", ffi.cast("struct dns_query *", query)))
end

local function wait(query)
  return process.wait_until(function()
    turn()
    return told[key(query)]
  end, 5, "an answer")
end

local function resolve(name, kind)
  local query, list = ask(name, kind)
  return list or wait(query)
end

local function first(name, kind)
  return resolve(name, kind)[1]
end

describe("DNS", function()
  setup(function()
    jit.off() -- compiled code must not be called back, nor what was compiled before
    jit.flush()
    on_done = ffi.cast("void (*)(struct dns_query *)", function(query) told[key(query)] = answer(query) end)
  end)
  teardown(function()
    on_done:free()
    jit.on()
  end)

  before_each(function()
    told, queries = {}, {}
    loop = ffi.new("struct loop")
    loop.ev = C.sys_ev_loop_new(0)
    C.clock_init(loop.clock)
    loop.clock.manual = true
    C.timers_init(loop.timers)
    names = serve()
  end)

  after_each(function()
    C.dns_free(dns)
    C.timers_close(loop.timers)
    C.sys_ev_loop_destroy(loop.ev)
    posix.C.sys_close_fd(names.fd)
  end)

  it("gives the addresses of a name, and asks once while they hold", function()
    start()
    names:set("a.example", { { A, "10.0.0.1", 30 }, { A, "10.0.0.2", 20 } })
    local list = resolve("A.example")
    assert.same({ "10.0.0.1", "10.0.0.2", ttl = 20 }, list)
    assert.same({ "10.0.0.1", "10.0.0.2", ttl = 20 }, select(2, ask("a.example")))
    assert.same({ "a.example/1" }, names.asked)
  end)

  it("honours the TTL of each answer", function()
    start()
    names:set("a.example", { { A, "10.0.0.1", 30 } })
    assert.equal("10.0.0.1", first("a.example"))
    names:set("a.example", { { A, "10.0.0.9", 30 } })
    C.clock_advance(loop.clock, 29 * SECOND)
    assert.equal("10.0.0.1", first("a.example"))
    C.clock_advance(loop.clock, 1 * SECOND)
    assert.equal("10.0.0.9", first("a.example"))
  end)

  it("believes an answer with a TTL of 0 only now, or as long as it is told to", function()
    start()
    names:set("a.example", { { A, "10.0.0.1", 0 } })
    assert.same({ "10.0.0.1", ttl = 0 }, resolve("a.example"))
    first("a.example")
    assert.equal(2, #names.asked)
    C.dns_free(dns)
    start { min_ttl_s = 5 }
    first("a.example")
    first("a.example")
    assert.equal(3, #names.asked)
  end)

  it("asks once for a name however many wait for it, and tells them all", function()
    start()
    names:set("a.example", { { A, "10.0.0.1" } })
    local waiting = {}
    for i = 1, 50 do waiting[i] = ask("a.example") end
    for i = 1, 50 do assert.equal("10.0.0.1", wait(waiting[i])[1]) end
    assert.equal(1, #names.asked)
  end)

  it("does not tell who has cancelled", function()
    start()
    names:set("a.example", { { A, "10.0.0.1" } })
    local one, two, three = ask("a.example"), ask("a.example"), ask("a.example")
    C.dns_cancel(dns, two)
    wait(one)
    wait(three)
    assert.is_nil(told[key(two)])
    C.dns_cancel(dns, one) -- nothing to cancel any more
  end)

  it("falls back to AAAA where there is no A, also behind an alias", function()
    start()
    names:set("six.example", { { AAAA, "::6" } })
    names:set("alias.example", { { CNAME, "six.example" }, { AAAA, "::7" } })
    assert.equal("::6", first("six.example"))
    assert.same({ "six.example/1", "six.example/28" }, names.asked)
    assert.is_not_nil(resolve("alias.example"))
  end)

  it("asks for the kind that is wanted", function()
    start()
    names:set("both.example", { { A, "10.0.0.1" }, { AAAA, "::1" } })
    assert.equal("::1", first("both.example", C.DNS_AAAA))
    assert.equal("10.0.0.1", first("both.example", C.DNS_A))
  end)

  it("resolves the targets of SRV, lowest priority first, then heaviest", function()
    start()
    names:set("_http._tcp.example", { { SRV, { 20, 1, 8003, "c.example" }, 50 }, { SRV, { 10, 5, 8001, "a.example" } },
      { SRV, { 10, 9, 8002, "b.example" } } })
    names:set("a.example", { { A, "10.0.0.1", 40 } })
    names:set("b.example", { { A, "10.0.0.2" }, { A, "10.0.0.3" } })
    names:set("c.example", { { A, "10.0.0.4" } })
    assert.same({ "10.0.0.2:8002/10/9", "10.0.0.3:8002/10/9", "10.0.0.1:8001/10/5", "10.0.0.4:8003/20/1", ttl = 40 },
      resolve("_http._tcp.example", C.DNS_SRV))
  end)

  it("gives what it has of SRV when one target is not to be found, and fails when none is", function()
    start()
    names:set("_a._tcp.example", { { SRV, { 1, 1, 81, "gone.example" } }, { SRV, { 1, 1, 80, "a.example" } } })
    names:set("_b._tcp.example", { { SRV, { 1, 1, 81, "gone.example" } } })
    names:set("a.example", { { A, "10.0.0.1" } })
    assert.same({ "10.0.0.1:80/1/1", ttl = 60 }, resolve("_a._tcp.example", C.DNS_SRV))
    assert.matches("^_b._tcp.example cannot be resolved", resolve("_b._tcp.example", C.DNS_SRV).error)
  end)

  it("names the name that fails, and does not ask for it again at once", function()
    start()
    assert.equal("nosuch.example cannot be resolved: Domain name not found", resolve("nosuch.example").error)
    assert.equal("nosuch.example cannot be resolved: Domain name not found", select(2, ask("nosuch.example")).error)
    assert.equal(1, #names.asked)
    names:set("nosuch.example", { { A, "10.0.0.1" } })
    C.clock_advance(loop.clock, 1 * SECOND)
    assert.equal("10.0.0.1", first("nosuch.example"))
  end)

  it("serves the last good answer while the servers fail, and the new one when they are back", function()
    start { tries = 1 }
    names:set("a.example", { { A, "10.0.0.1", 10 } })
    first("a.example")
    names:set("a.example", 2) -- SERVFAIL
    C.clock_advance(loop.clock, 11 * SECOND)
    assert.same({ "10.0.0.1", ttl = 0, stale = true }, resolve("a.example"))
    local asked = #names.asked
    assert.same({ "10.0.0.1", ttl = 0, stale = true }, select(2, ask("a.example")))
    assert.equal(asked, #names.asked)
    names:set("a.example", { { A, "10.0.0.9" } })
    C.clock_advance(loop.clock, 5 * SECOND)
    ask("a.example")
    process.wait_until(function()
      turn()
      return (select(2, ask("a.example")) or {})[1] == "10.0.0.9"
    end)
  end)

  it("does not let anybody wait long for servers that say nothing, if it knows a last good answer", function()
    start { timeout_ms = 60000 }
    names:set("a.example", { { A, "10.0.0.1", 10 } })
    first("a.example")
    names.silent = true
    C.clock_advance(loop.clock, 11 * SECOND)
    local query, at_once = ask("a.example")
    assert.is_nil(at_once)
    C.clock_advance(loop.clock, 0.3 * SECOND)
    turn()
    assert.same({ "10.0.0.1", ttl = 0, stale = true }, told[key(query)])
  end)

  it("stops serving it when it is too old", function()
    start { tries = 1, stale_s = 60 }
    names:set("a.example", { { A, "10.0.0.1", 10 } })
    first("a.example")
    names:set("a.example", 2)
    C.clock_advance(loop.clock, 71 * SECOND)
    assert.matches("^a.example cannot be resolved: Could not contact DNS servers", resolve("a.example").error)
  end)

  it("does not serve it when the servers say that the name is gone", function()
    start()
    names:set("a.example", { { A, "10.0.0.1", 10 } })
    first("a.example")
    names:set("a.example", nil)
    C.clock_advance(loop.clock, 11 * SECOND)
    assert.matches("Domain name not found", resolve("a.example").error)
  end)

  it("says that the servers do not answer", function()
    start { tries = 1, timeout_ms = 30 }
    names.silent = true
    assert.equal("a.example cannot be resolved: Timeout while contacting DNS servers", resolve("a.example").error)
  end)

  it("answers addresses itself, at once", function()
    start()
    assert.equal("10.1.2.3", select(2, ask("10.1.2.3"))[1])
    assert.equal("::1", select(2, ask("[::1]"))[1])
    assert.equal("::1", select(2, ask("::1", C.DNS_AAAA))[1])
    assert.is_not_nil(select(2, ask("::1", C.DNS_A)).error)
    assert.same({}, names.asked)
  end)

  it("knows the hosts file, and sees when it changes", function()
    local path = os.tmpname()
    process.write_file(path,
      "# 10.9.9.9 a.host\n10.0.0.7\tx.host A.Host # b.host\n::7 a.host\n10.0.0.8 a.host\n::9 c.host")
    start { hosts_file = path }
    assert.same({ "10.0.0.7", "10.0.0.8", ttl = 5 }, select(2, ask("a.host")))
    assert.equal("::7", select(2, ask("a.host", C.DNS_AAAA))[1])
    assert.equal("::9", select(2, ask("c.host"))[1])
    assert.is_not_nil(resolve("b.host").error)
    process.write_file(path, "10.0.0.9 a.host\n")
    C.clock_advance(loop.clock, 6 * SECOND)
    assert.equal("10.0.0.9", select(2, ask("a.host"))[1])
    os.remove(path)
  end)

  it("keeps localhost at home", function()
    start()
    assert.equal("127.0.0.1", select(2, ask("localhost"))[1])
    assert.equal("::1", select(2, ask("x.localhost", C.DNS_AAAA))[1])
    names:set("notlocalhost", { { A, "10.0.0.1" } })
    assert.equal("10.0.0.1", first("notlocalhost"))
  end)

  it("refuses what is no name", function()
    start()
    for _, name in ipairs { "", "a b", "a\0b", ("a"):rep(256), "a..b" } do
      assert.is_not_nil(resolve(name).error, name)
    end
  end)

  it("keeps no more names than it may, the least used go", function()
    start { max_names = 3 }
    for i = 1, 4 do names:set("n" .. i, { { A, "10.0.0." .. i } }) end
    first("n1") first("n2") first("n3") first("n1") first("n4")
    local counts = ffi.new("struct dns_counts")
    C.dns_counts(dns, counts)
    assert.equal(3, counts.names)
    assert.is_not_nil(select(2, ask("n1")))
    assert.is_nil(select(2, ask("n2")))
  end)

  it("refuses a further name when somebody waits for each that it may keep", function()
    start { max_names = 2 }
    names.silent = true
    ask("n1")
    ask("n2")
    assert.matches("too many", select(2, ask("n3")).error)
  end)

  it("takes answers from a table, for as long as they say", function()
    start()
    local a = ffi.new("struct dns_address[1]")
    a[0].family, a[0].bytes[0], a[0].bytes[3] = 4, 10, 5
    local name = "Fake.example"
    C.dns_fake(dns, ffi.new("struct slice", ffi.cast("const char *", name), #name), C.DNS_ADDRESS, a, 1, 10)
    assert.equal("10.0.0.5", select(2, ask("fake.example"))[1])
    assert.equal("10.0.0.5", select(2, ask("fake.example", C.DNS_A))[1])
    C.dns_offline(dns, true)
    C.clock_advance(loop.clock, 11 * SECOND)
    assert.same({ "10.0.0.5", stale = true, ttl = 0 }, select(2, ask("fake.example")))
    assert.equal("other.example cannot be resolved: Could not contact DNS servers",
      select(2, ask("other.example")).error)
    assert.same({}, names.asked)
  end)

  it("forgets everything when told to", function()
    start()
    names:set("a.example", { { A, "10.0.0.1" } })
    first("a.example")
    C.dns_flush(dns)
    first("a.example")
    assert.equal(2, #names.asked)
  end)

  it("can end while queries are in flight, those for SRV targets too", function()
    start()
    names:set("_a._tcp.example", { { SRV, { 1, 1, 80, "a.example" } } })
    ask("_a._tcp.example", C.DNS_SRV)
    process.wait_until(function()
      turn()
      names.silent = #names.asked >= 1
      return #names.asked >= 2
    end)
    ask("b.example")
    C.dns_free(dns)
    start()
    assert.same({}, told)
  end)

  it("says what is wrong with its servers", function()
    assert.is_true(C.dns_new(loop, ffi.new("struct dns_options", { servers = "nonsense:x" }), failure) == nil)
    assert.matches("^DNS cannot be set up: ", ffi.string(failure.text))
    start()
  end)
end)
