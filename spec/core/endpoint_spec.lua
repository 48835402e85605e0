-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"
local posix = require "spec.support.posix"

require("spec.support.system").declare_addresses()
local C = core.load("endpoint.h", "target.h")

local registry = debug.getregistry()
if not registry["sluice.spec.core.fork"] then
  registry["sluice.spec.core.fork"] = true
  ffi.cdef [[
    int endpoint_fork(void) __asm__("fork");
    void endpoint_exit(int) __asm__("_exit");
  ]]
end

local SECOND = 1000000
local SUCCESS, TCP, HTTP, TIMEOUT = 0, 1, 2, 3
local CHECKS, BREAKER = 1, 2
local ALL = 15

local kept = {}
local function slice(text)
  kept[#kept + 1] = text
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

local endpoints, now
local ended = ffi.new("uint32_t[1]")

local function take(upstream, ip, port, at)
  local address = ffi.new("struct address")
  assert.is_true(C.address_parse(slice(ip), port or 80, address))
  return C.endpoints_take(endpoints, slice(upstream), slice("name:80"), address, at or now)
end

local function new(slots)
  local failure = ffi.new("struct error")
  return ffi.gc(C.endpoints_new(slots or 128, failure), C.endpoints_free)
end

local function out(endpoint, heeds)
  return C.endpoint_out(endpoint, heeds or ALL, now, ended)
end

local function limits(successes, tcp, http, timeouts)
  return ffi.new("struct check_limits", successes, tcp, http, timeouts)
end

describe("endpoints", function()
  before_each(function() endpoints, now = new(), 1000 * SECOND end)

  it("are one for each address of an upstream", function()
    local one = take("api", "10.0.0.1")
    assert.is_true(one == take("api", "10.0.0.1"))
    for _, other in ipairs { take("api", "10.0.0.2"), take("api", "10.0.0.1", 81), take("web", "10.0.0.1"),
      take("api", "::1") } do
      assert.is_false(one == other)
    end
    assert.equal("10.0.0.1:80", ffi.string(one.address))
    assert.equal("[::1]:80", ffi.string(take("api", "::1").address))
    assert.equal("api", ffi.string(one.upstream_name))
    assert.equal("name:80", ffi.string(one.target))
  end)

  it("have numbers that are checked", function()
    local one = take("api", "10.0.0.1")
    local number = C.endpoints_handle(endpoints, one)
    assert.is_true(C.endpoints_at(endpoints, number) == one)
    for _, wrong in ipairs { 0, -1, 129, 0 / 0, 1e300, number == 1 and 2 or 1 } do
      assert.is_true(C.endpoints_at(endpoints, wrong) == nil)
    end
    assert.equal(0, C.endpoints_handle(endpoints, nil))
  end)

  it("are listed by their upstream", function()
    for i = 1, 5 do take("api", "10.0.0." .. i) end
    take("web", "10.0.0.1")
    local function count(upstream)
      local cursor, total = ffi.new("uint64_t[1]"), 0
      while C.endpoints_next(endpoints, slice(upstream), cursor, now) ~= nil do total = total + 1 end
      return total
    end
    assert.same({ 5, 1, 0, 6 }, { count("api"), count("web"), count("other"), count("") })
  end)

  it("give way to others once nobody has touched them for long", function()
    endpoints = new(64)
    for i = 1, 64 do assert.is_true(take("api", "10.0.0." .. i) ~= nil) end
    assert.is_true(take("api", "10.0.1.1") == nil)
    now = now + 1700 * SECOND
    C.endpoint_touch(take("api", "10.0.0.7"), now)
    now = now + 200 * SECOND
    local fresh = take("api", "10.0.1.1")
    assert.is_true(fresh ~= nil)
    assert.equal(0, fresh.out)
    assert.equal("10.0.1.1:80", ffi.string(fresh.address))
    assert.equal("10.0.0.7:80", ffi.string(take("api", "10.0.0.7").address))
  end)

  it("are out for several reasons, and take requests when none is left", function()
    local one = take("api", "10.0.0.1")
    assert.equal(0, out(one))
    assert.is_true(C.endpoint_set(one, CHECKS, true, 0, now))
    assert.is_false(C.endpoint_set(one, CHECKS, true, 0, now))
    assert.is_true(C.endpoint_set(one, BREAKER, true, 0, now))
    assert.equal(3, out(one))
    assert.equal(BREAKER, out(one, BREAKER)) -- who heeds one of them
    assert.is_true(C.endpoint_set(one, CHECKS, false, 0, now))
    assert.equal(BREAKER, out(one))
    assert.is_true(C.endpoint_set(one, BREAKER, false, 0, now))
    assert.is_false(C.endpoint_set(one, BREAKER, false, 0, now))
    assert.equal(0, out(one))
  end)

  it("end a reason whose time is over, and say so once", function()
    local one = take("api", "10.0.0.1")
    C.endpoint_set(one, BREAKER, true, now + SECOND, now)
    C.endpoint_set(one, CHECKS, true, 0, now)
    assert.equal(3, out(one))
    now = now + SECOND
    assert.equal(CHECKS, out(one))
    assert.equal(BREAKER, ended[0])
    assert.equal(CHECKS, out(one))
    assert.equal(0, ended[0])
    assert.equal(now - SECOND, tonumber(one.since_us)) -- it has been out all along
  end)

  it("let one request through in a while when the time of a breaker is over", function()
    local one = take("api", "10.0.0.1")
    assert.is_true(C.endpoint_admit(one, now))
    assert.is_true(C.endpoint_break(one, now + 10 * SECOND, 3 * SECOND, now))
    assert.same({ BREAKER, false }, { out(one), C.endpoint_admit(one, now) })
    now = now + 10 * SECOND
    assert.equal(0, out(one))
    assert.is_true(C.endpoint_admit(one, now))
    assert.same({ BREAKER, false }, { out(one), C.endpoint_admit(one, now) })
    now = now + 3 * SECOND
    assert.equal(0, out(one))
    assert.is_true(C.endpoint_admit(one, now))
    assert.is_false(C.endpoint_break(one, now + 20 * SECOND, 3 * SECOND, now)) -- again: for another time
    now = now + 19 * SECOND
    assert.same({ BREAKER, false }, { out(one), C.endpoint_admit(one, now) })
    assert.is_true(C.endpoint_set(one, BREAKER, false, 0, now))
    assert.same({ 0, true, true }, { out(one), C.endpoint_admit(one, now), C.endpoint_admit(one, now) })
  end)

  it("leave after failures in a row and come back after successes", function()
    local one, its = take("api", "10.0.0.1"), limits(2, 3, 2, 4)
    local function count(event) return C.endpoint_count(one, its, event, now) end
    assert.is_false(count(TCP))
    assert.is_false(count(TCP))
    assert.is_false(count(SUCCESS)) -- the row is broken
    assert.is_false(count(TCP))
    assert.is_false(count(HTTP)) -- each kind has its own row
    assert.is_false(count(TCP))
    assert.equal(0, out(one))
    assert.is_true(count(HTTP))
    assert.equal(CHECKS, out(one))
    assert.is_false(count(SUCCESS))
    assert.is_false(count(TIMEOUT)) -- the row is broken
    assert.is_false(count(SUCCESS))
    assert.is_true(count(SUCCESS))
    assert.equal(0, out(one))
    for _ = 1, 3 do assert.is_false(count(TIMEOUT)) end
    assert.is_true(count(TIMEOUT))
  end)

  it("do not go by what has no limit", function()
    local one = take("api", "10.0.0.1")
    for _ = 1, 100000 do
      for event = SUCCESS, TIMEOUT do C.endpoint_count(one, limits(0, 0, 0, 0), event, now) end
    end
    assert.equal(0, out(one))
    assert.equal(0, tonumber(one.counts))
  end)

  it("begin anew with another configuration of checks, unless it is an older one", function()
    local one = take("api", "10.0.0.1")
    C.endpoint_adopt(one, 7, 3, now)
    C.endpoint_set(one, CHECKS, true, 0, now)
    C.endpoint_set(one, BREAKER, true, 0, now)
    C.endpoint_adopt(one, 7, 4, now) -- a reload that changed other things
    assert.equal(3, out(one))
    C.endpoint_adopt(one, 8, 2, now)
    assert.equal(3, out(one))
    C.endpoint_adopt(one, 8, 5, now)
    assert.equal(BREAKER, out(one))
  end)

  it("count requests in flight of all workers, and forget those of one that died", function()
    local one = take("api", "10.0.0.1")
    C.endpoints_begin_worker(endpoints, 1)
    C.endpoints_begin_worker(endpoints, 2)
    C.endpoint_enter(one, 1)
    C.endpoint_enter(one, 1)
    C.endpoint_enter(one, 2)
    assert.equal(3, C.endpoint_in_flight(endpoints, one))
    C.endpoint_leave(one, 2)
    C.endpoints_begin_worker(endpoints, 1)
    assert.equal(0, C.endpoint_in_flight(endpoints, one))
    C.endpoint_enter(one, 1)
    assert.equal(1, C.endpoint_in_flight(endpoints, one))
  end)

  it("know the peak of their latency, which fades", function()
    local one = take("api", "10.0.0.1")
    assert.equal(0, tonumber(C.endpoint_latency(one, now)))
    C.endpoint_answered_in(one, 1000, now)
    C.endpoint_answered_in(one, 50000, now)
    assert.equal(50000, tonumber(C.endpoint_latency(one, now)))
    C.endpoint_answered_in(one, 1000, now) -- at the same moment it says little
    assert.is_true(C.endpoint_latency(one, now) > 49000)
    now = now + 10 * SECOND
    C.endpoint_answered_in(one, 1000, now)
    local faded = tonumber(C.endpoint_latency(one, now))
    assert.is_true(faded > 18000 and faded < 21000)
    now = now + 60 * SECOND
    assert.is_true(C.endpoint_latency(one, now) < 100)
    assert.is_true(C.endpoint_latency(one, now) > 0)
  end)

  it("are checked by one at a time, and by another when that one dies", function()
    local one = take("api", "10.0.0.1")
    local function claim() return tonumber(C.endpoint_claim_check(one, 1, 5 * SECOND, now)) end
    assert.equal(0, claim())
    assert.equal(5 * SECOND, claim())
    C.endpoint_check_at(one, now + SECOND)
    now = now + SECOND - 1
    assert.equal(1, claim())
    now = now + 1
    assert.equal(0, claim())
    now = now + 4 * SECOND
    assert.equal(SECOND, claim())
    now = now + SECOND
    assert.equal(0, claim())
  end)

  it("are given free by the successor of a worker that died over their check", function()
    local one, other = take("api", "10.0.0.1"), take("api", "10.0.0.2")
    assert.equal(0, tonumber(C.endpoint_claim_check(one, 1, 5 * SECOND, now)))
    assert.equal(0, tonumber(C.endpoint_claim_check(other, 2, 5 * SECOND, now)))
    C.endpoints_begin_worker(endpoints, 1)
    assert.equal(0, tonumber(C.endpoint_claim_check(one, 3, 5 * SECOND, now)))
    assert.equal(5 * SECOND, tonumber(C.endpoint_claim_check(other, 3, 5 * SECOND, now)))
    C.endpoint_check_at(one, now + SECOND)
    C.endpoints_begin_worker(endpoints, 3) -- what was made in time is due in its time
    assert.equal(SECOND, tonumber(C.endpoint_claim_check(one, 1, 5 * SECOND, now)))
  end)

  it("are checked at once when their health has changed", function()
    local one = take("api", "10.0.0.1")
    assert.equal(0, tonumber(C.endpoint_claim_check(one, 1, 5 * SECOND, now)))
    C.endpoint_count(one, limits(1, 1, 1, 1), TCP, now)
    assert.equal(0, tonumber(C.endpoint_claim_check(one, 1, 5 * SECOND, now)))
  end)

  it("can be made after processes have been killed over it", function()
    endpoints = new(4096)
    local later = now + 60001 * 3600 * SECOND -- when nobody has a use any more for what a process made
    for round = 1, 40 do
      local pid = C.endpoint_fork()
      if pid == 0 then
        for n = 0, 60000 do
          take("api", ("10.%d.%d.%d"):format(round, math.floor(n / 250), n % 250), 80, now + n * 3600 * SECOND)
        end
        C.endpoint_exit(0)
      end
      posix.pause(0.001 + round * 0.0001)
      posix.kill(pid, posix.SIGKILL)
      posix.C.sys_waitpid(pid, ffi.new("int[1]"), 0)
      local mine = take("api", "10.0.0." .. round, 80, later + round)
      assert.equal("10.0.0." .. round .. ":80", ffi.string(mine.address))
    end
  end)

  it("are the same for processes that find and count them at once", function()
    local pids, code = {}, ffi.new("int[1]")
    for i = 1, 4 do
      local pid = C.endpoint_fork()
      if pid == 0 then
        local ok = pcall(function()
          for n = 1, 50 do
            local one = take("api", "10.0.0." .. n)
            for _ = 1, 20 do C.endpoint_enter(one, i) end
            C.endpoint_count(one, limits(0, 4, 0, 0), TCP, now)
          end
        end)
        C.endpoint_exit(ok and 0 or 1)
      end
      pids[i] = pid
    end
    for _, pid in ipairs(pids) do
      posix.C.sys_waitpid(pid, code, 0)
      assert.equal(0, code[0])
    end
    local columns = 0
    for n = 1, 50 do
      local one = take("api", "10.0.0." .. n)
      for i = 1, 4 do columns = columns + one.in_flight[i] end
      assert.equal(CHECKS, out(one), n)
    end
    assert.equal(4 * 50 * 20, columns)
  end)
end)
