-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("counters.h")

local registry = debug.getregistry()
if not registry["sluice.spec.core.counters"] then
  registry["sluice.spec.core.counters"] = true
  ffi.cdef [[
    int sys_fork(void) __asm__("fork");
    void sys_exit(int) __asm__("_exit");
    int sys_yield(void) __asm__("sched_yield");
  ]]
end

local OK, NEW, NONE, DIFFERS, TAKEN, FULL = 0, 1, 2, 3, 4, -3
local NOW, SECOND = 1700000000LL * 1000000, 1000000
local failure = ffi.new("struct error")
local status = ffi.new("int[1]")
local number = ffi.new("int64_t[1]")
local table_of

local function new(slots, text)
  local counters = C.counters_new(slots or 1024, text or 4096, failure)
  assert(counters ~= nil, ffi.string(failure.text))
  return ffi.gc(counters, C.counters_free)
end

local function add(key, delta, ttl, now)
  local value = C.counters_add(table_of, key, #key, delta, ttl or 0, now or NOW, status)
  return tonumber(value), status[0]
end

local function get(key, now)
  local value = C.counters_get(table_of, key, #key, now or NOW, number, status)
  if status[0] == NONE then return nil end
  return tonumber(value), tonumber(number[0])
end

-- Runs `work(i)` in `count` processes at once and waits for them all; false when one did not end well.
local function in_processes(count, work)
  local pids = {}
  for i = 1, count do
    local pid = C.sys_fork()
    if pid == 0 then
      C.sys_exit(pcall(work, i) and 0 or 1)
    end
    pids[i] = pid
  end
  return pids
end

local function wait_all(pids)
  local code = ffi.new("int[1]")
  for _, pid in ipairs(pids) do
    posix.C.sys_waitpid(pid, code, 0)
    assert.equal(0, code[0])
  end
end

local function use(now)
  local out = ffi.new("struct counters_use")
  C.counters_use(table_of, now or NOW, out)
  return out
end

describe("counters", function()
  before_each(function() table_of = new() end)

  it("add up, from 0", function()
    assert.same({ 3, NEW }, { add("a", 3) })
    assert.same({ 1, OK }, { add("a", -2) })
    assert.equal(1, get("a"))
    assert.is_nil(get("b"))
  end)

  it("tell keys apart that differ in their last byte only, or in length", function()
    for i = 0, 40 do add(("k"):rep(i) .. "1", i) end
    for i = 0, 40 do assert.equal(i, get(("k"):rep(i) .. "1")) end
    assert.is_nil(get(("k"):rep(10) .. "2"))
  end)

  it("end after their time, which an add does not prolong", function()
    add("a", 5, 10 * SECOND)
    assert.same({ 6, OK }, { add("a", 1, 99 * SECOND, NOW + 9 * SECOND) })
    assert.same({ 6, tonumber(NOW) + 10 * SECOND }, { get("a", NOW + 10 * SECOND - 1) })
    assert.is_nil(get("a", NOW + 10 * SECOND))
    assert.same({ 1, NEW }, { add("a", 1, 10 * SECOND, NOW + 10 * SECOND) })
    assert.equal(1, get("a", NOW + 20 * SECOND - 1))
  end)

  it("are set with a new end, and compared and set without", function()
    add("a", 5, 10 * SECOND)
    assert.equal(OK, C.counters_set(table_of, "a", 1, 70, 20 * SECOND, NOW))
    assert.same({ 70, tonumber(NOW) + 20 * SECOND }, { get("a") })
    assert.equal(DIFFERS, C.counters_compare_set(table_of, "a", 1, 5, 6, NOW, number))
    assert.equal(70, tonumber(number[0]))
    assert.equal(OK, C.counters_compare_set(table_of, "a", 1, 70, 71, NOW, number))
    assert.same({ 71, tonumber(NOW) + 20 * SECOND }, { get("a") })
    assert.equal(NONE, C.counters_compare_set(table_of, "b", 1, 0, 1, NOW, number))
    assert.equal(OK, C.counters_set(table_of, "b", 1, -1, 0, NOW))
    assert.equal(-1, get("b"))
  end)

  it("can be deleted, and begin anew", function()
    add("a", 5)
    assert.equal(OK, C.counters_delete(table_of, "a", 1, NOW))
    assert.equal(NONE, C.counters_delete(table_of, "a", 1, NOW))
    assert.is_nil(get("a"))
    assert.same({ 1, NEW }, { add("a", 1) })
  end)

  it("say when there is no room, and count it", function()
    table_of = new(16)
    local stored, refused = 0, 0
    for i = 1, 20 do
      local _, how = add("key" .. i, 1, SECOND)
      if how == NEW then stored = stored + 1 else refused = refused + 1 assert.equal(FULL, how) end
    end
    assert.same({ 12, 8 }, { stored, refused })
    assert.same({ 12, 8 }, { use().used, tonumber(use().refused) })
  end)

  it("have room for 150,000 keys in a table of the gateway's size", function()
    table_of = new(262144)
    for i = 1, 150000 do
      if select(2, add("key" .. i, 1)) == FULL then error("no room for key " .. i) end
    end
    for i = 1, 150000, 1000 do assert.equal(1, (get("key" .. i))) end
  end)

  it("reuse what has ended, a thousand times over", function()
    table_of = new(16)
    for i = 1, 1000 do
      for j = 1, 12 do assert.same({ 1, NEW }, { add(i .. "/" .. j, 1, SECOND, NOW + i * SECOND) }) end
      assert.equal(12, use(NOW + i * SECOND).used)
    end
  end)

  it("give the same results as a plain table, whatever is done to them", function()
    table_of = new(64)
    math.randomseed(11)
    local model, now = {}, NOW
    for _ = 1, 20000 do
      local key = "k" .. math.random(30)
      local entry = model[key]
      if entry and entry.ends <= now then entry, model[key] = nil, nil end
      local choice = math.random(10)
      if choice == 1 then
        now = now + math.random(SECOND)
      elseif choice == 2 then
        assert.equal(entry and OK or NONE, C.counters_delete(table_of, key, #key, now))
        model[key] = nil
      elseif choice == 3 then
        local ttl = math.random(3 * SECOND)
        assert.equal(OK, C.counters_set(table_of, key, #key, choice, ttl, now))
        model[key] = { value = choice, ends = now + ttl }
      elseif choice == 4 then
        assert.equal(entry and entry.value, (get(key, now)))
      else
        local ttl = math.random(3 * SECOND)
        entry = entry or { value = 0, ends = now + ttl }
        entry.value, model[key] = entry.value + choice, entry
        assert.equal(entry.value, (add(key, choice, ttl, now)))
      end
    end
  end)

  it("lose nothing when many processes hammer the same key, and one of them begins it", function()
    wait_all(in_processes(4, function()
      for _ = 1, 100000 do add("hot", 1, 3600 * SECOND) end
    end))
    assert.equal(400000, get("hot"))
    assert.equal(1, use().used)
  end)

  it("lose nothing when processes race to begin a key in slots that not all of them see ended", function()
    local PROCESSES, KEYS = 2, 12
    table_of = new(64)
    local gate = new(16)
    local arrived = C.counters_name(gate, "arrived", 7)
    for round = 1, 150 do
      local now = NOW + round * 100 * SECOND
      -- Over for the second process, whose clock is ahead, and not yet for the first: they choose different slots.
      for i = 1, 20 do add("filler" .. i, 1, SECOND, now) end
      wait_all(in_processes(PROCESSES, function(which)
        C.counters_add_at(gate, arrived, 1)
        while C.counters_at(gate, arrived) < round * PROCESSES do C.sys_yield() end
        for k = 1, KEYS do add(round .. "/" .. k, k, 50 * SECOND, now + which * SECOND * 0.7) end
      end))
      now = now + 2 * SECOND
      for k = 1, KEYS do assert.equal(PROCESSES * k, (get(round .. "/" .. k, now))) end
      assert.equal(KEYS, use(now).used)
    end
  end)

  it("go on when processes are killed in the middle of it", function()
    local victims = in_processes(3, function()
      while true do
        for i = 1, 200 do add("k" .. i, 1, 50) end
      end
    end)
    process.wait_until(function() return get("k200", 0) end)
    for _, pid in ipairs(victims) do
      posix.C.sys_kill(pid, 9)
      posix.C.sys_waitpid(pid, nil, 0)
    end
    local later = NOW + SECOND
    for i = 1, 500 do assert.same({ 1, NEW }, { add("after" .. i, 1, SECOND, later) }) end
    assert.equal(500, use(later).used)
  end)

  describe("leases", function()
    local lease, held = ffi.new("uint64_t[1]"), ffi.new("int64_t[1]")

    local function take(holder, key, most, now)
      local result = C.counters_lease(table_of, holder, key, #key, most, now or NOW, lease, held)
      return result, tonumber(held[0])
    end

    local function release(holder) C.counters_release(table_of, holder, lease[0], NOW) end
    local function count(key) return tonumber(C.counters_leased(table_of, key, #key, NOW)) end

    it("are as many as may be, over all holders", function()
      local one, two = C.counters_join(table_of), C.counters_join(table_of)
      assert.same({ OK, 1 }, { take(one, "a", 3) })
      assert.same({ OK, 2 }, { take(two, "a", 3) })
      assert.same({ OK, 3 }, { take(two, "a", 3) })
      assert.same({ TAKEN, 3 }, { take(one, "a", 3) })
      assert.same({ OK, 1 }, { take(one, "b", 3) })
      assert.equal(3, count "a")
      take(one, "a", 0)
      release(two)
      assert.same({ 2, 1 }, { count "a", count "b" })
      assert.same({ OK, 3 }, { take(one, "a", 3) })
    end)

    it("of none are none", function()
      assert.same({ TAKEN, 0 }, { take(C.counters_join(table_of), "a", 0) })
      assert.equal(0, count "a")
    end)

    it("do not end with time, and leave nothing behind", function()
      local holder = C.counters_join(table_of)
      take(holder, "a", 1)
      assert.same({ TAKEN, 1 }, { take(holder, "a", 1, NOW + 10LL * 366 * 86400 * SECOND) })
      assert.equal(1, use().used)
      release(holder)
      assert.same({ 0, 0 }, { count "a", use().used })
    end)

    it("go with their holder, and so does their room in the table", function()
      table_of = new(16)
      for round = 1, 3 do
        local holder = C.counters_join(table_of)
        for i = 1, 12 do assert.equal(OK, (take(holder, "key" .. round .. "." .. i, 1))) end
        assert.equal(FULL, (take(holder, "another", 1)))
        assert.same({ 1, 12 }, { count("key" .. round .. ".1"), use().used })
        C.counters_leave(table_of, holder)
        assert.same({ 0, 0 }, { count("key" .. round .. ".1"), use().used })
      end
    end)

    it("have a thousand holders at a time, and as many anew when they have gone", function()
      local holders = {}
      for i = 1, 1024 do holders[i] = C.counters_join(table_of) end
      assert.is_true(C.counters_join(table_of) == 0)
      for i = 1, 1024, 2 do
        take(holders[i], "a", 1024)
        C.counters_leave(table_of, holders[i])
      end
      assert.equal(0, count "a")
      local place = C.counters_join(table_of)
      assert.is_true(place ~= 0)
      assert.same({ OK, 1 }, { take(place, "a", 1) })
    end)

    it("are never more than may be, whoever wants them at once", function()
      local holders = {}
      for i = 1, 4 do holders[i] = C.counters_join(table_of) end
      wait_all(in_processes(4, function(i)
        for _ = 1, 20000 do
          if take(holders[i], "a", 2) == OK then
            assert(add("at work", 1) <= 2)
            add("taken", 1)
            add("at work", -1)
            release(holders[i])
          end
        end
      end))
      assert.is_truthy(get "taken")
      assert.equal(0, count "a")
    end)
  end)
end)

describe("named counters", function()
  before_each(function() table_of = new() end)

  local function name(key)
    return tonumber(C.counters_name(table_of, key, #key))
  end

  local function list(prefix)
    local cursor, key, len = ffi.new("uint64_t[1]"), ffi.new("const char *[1]"), ffi.new("uint32_t[1]")
    local found = {}
    while true do
      local result = C.counters_next(table_of, prefix, #prefix, 3, cursor, key, len, number)
      if result == NONE then return found end
      if result == OK then
        assert.equal(cursor[0], name(ffi.string(key[0], len[0])))
        found[ffi.string(key[0], len[0])] = tonumber(number[0])
      end
    end
  end

  it("are reached by a handle that is the same for all, and are no keys", function()
    local a, b = name("a"), name("b")
    assert.equal(a, name("a"))
    assert.is_true(a > 0 and b > 0 and a ~= b)
    assert.equal(5, tonumber(C.counters_add_at(table_of, a, 5)))
    assert.equal(5, tonumber(C.counters_at(table_of, a)))
    assert.equal(0, tonumber(C.counters_at(table_of, b)))
    assert.is_false(C.counters_swap_at(table_of, a, 4, 9))
    assert.is_true(C.counters_swap_at(table_of, a, 5, 9))
    assert.equal(9, tonumber(C.counters_at(table_of, a)))
    assert.is_nil(get("a"))
    assert.is_true(C.counters_is_handle(table_of, a))
    assert.is_false(C.counters_is_handle(table_of, 0))
    assert.is_false(C.counters_is_handle(table_of, 257))
  end)

  it("can be listed by prefix", function()
    C.counters_add_at(table_of, name("http/200"), 7)
    C.counters_add_at(table_of, name("http/500"), 1)
    name("kafka")
    assert.same({ ["http/200"] = 7, ["http/500"] = 1 }, list("http/"))
    assert.same({ ["http/200"] = 7, ["http/500"] = 1, kafka = 0 }, list(""))
    assert.equal(3, use().named)
  end)

  it("say when there is no more room for texts or for slots", function()
    table_of = new(64, 20)
    assert.is_true(name(("x"):rep(15)) > 0)
    assert.equal(FULL, name(("y"):rep(15)))
    assert.is_true(name("12345") > 0)
    table_of = new(16, 4096)
    for i = 1, 4 do assert.is_true(name("n" .. i) > 0) end
    assert.equal(FULL, name("n5"))
    assert.is_true(name("n4") > 0)
    assert.equal(FULL, name(""))
  end)

  it("are one for all processes that name them at the same time, and add up", function()
    wait_all(in_processes(4, function()
      for i = 1, 200 do
        local handle = name("series" .. i)
        for _ = 1, 50 do C.counters_add_at(table_of, handle, 1) end
      end
    end))
    local found = list("series")
    for i = 1, 200 do assert.equal(200, found["series" .. i]) end
    assert.equal(200, use().named)
  end)

  it("say how full they are a piece at a time, the same as at once", function()
    for i = 1, 7 do name("series" .. i) end
    for i = 1, 5 do add("key" .. i, 1) end
    local whole, out, at, pieces = use(), ffi.new("struct counters_use"), ffi.new("uint32_t[1]"), 1
    while C.counters_use_some(table_of, NOW, at, 10, out) do pieces = pieces + 1 end
    assert.equal(math.ceil(whole.slots / 10), pieces)
    for _, field in ipairs { "slots", "used", "named", "text_bytes", "text_used", "refused" } do
      assert.equal(tonumber(whole[field]), tonumber(out[field]), field)
    end
    assert.equal(7, out.named)
    assert.equal(12, out.used)
  end)
end)
