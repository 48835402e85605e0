-- SPDX-License-Identifier: Apache-2.0
-- What the workers of one gateway share: counters, the store, metrics. Two workers; each request's code says which of
-- them ran it.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"

local RUN = [[
local sluice = require "sluice"
local run = { version = "1.0.0", priority = 10 }

function run.access(conf, exchange)
  local fn = assert(load("local exchange, sluice = ...; " .. exchange.request:get_header("x-access"), "=access"))
  exchange.response:exit(200, { fn(exchange, sluice) })
end

return run
]]

describe("two workers", function()
  local gw

  local function config()
    return {
      _format_version = "3.0",
      routes = { { name = "all", paths = { "/" } } },
      plugins = { { name = "run" } },
    }
  end

  setup(function() gw = gateway.start(config(), { workers = 2, plugins = { run = RUN } }) end)
  teardown(function() gw:stop() end)

  local function run(text, client)
    local request = { headers = { ["X-Access"] = text:gsub("%s*\n%s*", " ") } }
    local response = client and assert(client:request(request)) or gw:request(request)
    if response.status ~= 200 then error(response.body .. gw:log(), 2) end
    return cjson.decode(response.body)
  end

  -- Connections to both workers, by the number of the worker.
  local function both()
    local clients = {}
    process.wait_until(function()
      local client = gw:connect()
      local number = run("return sluice.node.get_worker_id()", client)[1]
      if clients[number] then client:close() else clients[number] = client end
      return clients[1] and clients[2]
    end, 10, "a connection to each worker")
    return clients
  end

  describe("counters", function()
    it("count together, exactly", function()
      local clients = both()
      for i = 1, 100 do run('return sluice.counters.add("together")', clients[i % 2 + 1]) end
      assert.same({ 100 }, run('return sluice.counters.get("together")', clients[1]))
      for _, client in ipairs(clients) do client:close() end
    end)

    it("have a key in two parts where that is easier", function()
      assert.same({ 1, 1 }, run('return sluice.counters.add("of:", 1, 0, "alice"), sluice.counters.get("of:alice")'))
      assert.same({ 2, 2 }, run([[local long = ("x"):rep(600)
        return sluice.counters.add(long, 2, 0, long), sluice.counters.get(long .. long)]]))
    end)

    it("end after their time, which adding does not prolong", function()
      assert.same({ 5, 6, true }, run([[local c = sluice.counters
        return c.add("short", 5, 1), c.add("short", 1, 100), c.ttl("short") <= 1]]))
      local gone = function() return run("return sluice.counters.get('short') or false")[1] == false end
      process.wait_until(gone, 5, "its end")
      assert.same({ 1 }, run('return sluice.counters.add("short")'))
    end)

    it("compare and set, set and delete", function()
      assert.same({ { false, "none" }, true, { true }, { false, "differs" }, 2, true }, run([[local c = sluice.counters
        return { c.compare_set("cas", 0, 1) }, c.set("cas", 1), { c.compare_set("cas", 1, 2) },
          { c.compare_set("cas", 1, 3) }, c.get("cas"), c.delete("cas") == nil and c.get("cas") == nil ]]))
    end)
  end)

  describe("the store", function()
    it("keeps texts for all, and through a restart of the workers", function()
      local clients = both()
      assert.same({ true, false }, run([[local s = sluice.store
        return s.set("a/1", ("x"):rep(100000)), s.add("a/1", "other")]], clients[1]))
      assert.same({ 100000, 0 }, run('local v, ttl = sluice.store.get("a/1") return #v, ttl', clients[2]))
      for _, client in ipairs(clients) do client:close() end
      for _, pid in ipairs(gw:workers()) do os.execute("kill -9 " .. pid) end
      process.wait_until(function()
        local client = gw:connect()
        local response = client:request({ headers = { ["X-Access"] = 'return #sluice.store.get("a/1")' } })
        client:close()
        return response and response.body == "[100000]"
      end, 10, "the text again")
    end)

    it("walks and deletes by prefix, and forgets what has ended", function()
      assert.same({ { "b/1", "b/2" }, 2, 0, true, true }, run([[local s = sluice.store
        s.set("b/2", "two") s.set("b/1", "one") s.set("c", "three") s.set("d/1", "gone", 0.001)
        sluice.sleep(0.05)
        local keys = {} for key in s.each("b/") do keys[#keys + 1] = key end
        return keys, s.delete_prefix("b/"), s.delete_prefix("b/"), s.get("c") == "three", s.each("d/")() == nil ]]))
    end)
  end)

  describe("crypto", function()
    it("gives digests, codes and encodings that others give", function()
      assert.same({
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
        "+/8=", "-_8", true, true, true,
      }, run([[local c = sluice.crypto
        return c.hex(c.digest("sha256", "abc")),
          c.hex(c.hmac("sha256", "key", "The quick brown fox jumps over the lazy dog")),
          c.base64_encode("\251\255"), c.base64url_encode("\251\255"), c.base64_decode("+/8=") == "\251\255",
          c.base64_decode("+/8") == nil, c.equal("a", "a") and not c.equal("a", "b") ]]))
    end)

    it("seals what cannot be read or changed without the key", function()
      assert.same({ "secret", true, true, true }, run([[local c = sluice.crypto
        local key = c.random(32)
        local sealed = c.seal(key, "secret", "for me")
        local changed = sealed:sub(1, -2) .. string.char((sealed:byte(-1) + 1) % 256)
        return c.open(key, sealed, "for me"), not c.open(key, sealed, "for you"), not c.open(key, changed, "for me"),
          not c.open(c.random(32), sealed, "for me") ]]))
    end)

    it("names the digest that is none", function()
      assert.matches("sluice.crypto.digest: digest must be md5, sha1, sha224, sha256, sha384 or sha512, got sha3",
        run('return select(2, pcall(sluice.crypto.digest, "sha3", "x"))')[1])
    end)
  end)

  it("dns gives addresses, or says which name has none", function()
    local got = run([[local list, ttl = sluice.dns.resolve("localhost") return list[1].address, type(ttl) ]])
    assert.is_true(got[1] == "127.0.0.1" or got[1] == "::1")
    assert.matches("nowhere.invalid", run('return select(2, sluice.dns.resolve("nowhere.invalid"))')[1], nil, true)
  end)

  describe("the status listener", function()
    local function status(path)
      return http.get(gw.status_port, path)
    end

    it("serves metrics in pieces, none of them to HEAD, and whole to a client of HTTP/1.0", function()
      local client = assert(http.connect(gw.status_port))
      local head = client:request({ method = "HEAD", path = "/metrics" })
      assert.equal(200, head.status)
      assert.equal("", head.body or "")
      assert.matches("\nsluice_node_info{", client:request({ path = "/metrics" }).body, nil, true)
      client:close()
      local code, out = process.run({ "curl", "-s", "-0", "http://127.0.0.1:" .. gw.status_port .. "/metrics" })
      assert.equal(0, code)
      assert.matches("\nsluice_counters_refused_total{", out, nil, true)
    end)

    it("serves the metrics of all workers", function()
      local clients = both()
      run('sluice.metrics.counter("spec_total", "Of a spec.", { "who" }):add(2, "a") return 1', clients[1])
      run('sluice.metrics.counter("spec_total", "Of a spec.", { "who" }):add(3, "a") return 1', clients[2])
      run('sluice.metrics.gauge("spec_open"):set(4) return 1', clients[1])
      run('sluice.metrics.gauge("spec_open"):set(5) return 1', clients[2])
      run('sluice.metrics.histogram("spec_seconds"):observe(0.3) return 1', clients[2])
      for _, client in ipairs(clients) do client:close() end
      local response = status("/metrics")
      assert.equal("text/plain; version=0.0.4; charset=utf-8", response.headers["content-type"])
      for _, line in ipairs { 'spec_total{who="a"} 5', "spec_open 9", 'spec_seconds_bucket{le="0.5"} 1',
        "spec_seconds_sum 0.3" } do
        assert.is_truthy(("\n" .. response.body):find("\n" .. line .. "\n", 1, true), line .. " in " .. response.body)
      end
    end)

    it("serves Kong's status", function()
      local body = cjson.decode(status("/status").body)
      local requests = body.server.total_requests
      for _ = 1, 10 do run("return 1") end
      process.wait_until(function()
        return cjson.decode(status("/status").body).server.total_requests >= requests + 11
      end, 5, "the requests of both workers")
      assert.is_string(body.memory.workers_lua_vms[1].http_allocated_gc)
      assert.equal(32, #body.configuration_hash)
    end)

    it("refuses what it has not", function()
      assert.equal(404, status("/other").status)
      assert.equal(405, http.request(gw.status_port, { method = "POST", path = "/status", body = "x" }).status)
    end)
  end)
end)
