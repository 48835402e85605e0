-- SPDX-License-Identifier: Apache-2.0
-- The processes of a gateway: what happens when configuration, plugins, workers or the binary change or break.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

-- Answers by itself, after a while when asked to, and behind the request's body.
local ANSWER = [[
local sluice = require "sluice"
local answer = { version = "1.0.0", priority = 10 }
function answer.access(conf, exchange)
  local wait, length = exchange.request:get_header("x-wait"), exchange.request:get_header("content-length")
  if wait or length then sluice.log.notice("an answer is waited for") end
  if wait then sluice.sleep(tonumber(wait)) end
  if length then exchange.request:get_raw_body() end
  return exchange.response:exit(200, conf.text)
end
return answer
]]

local SCHEMA = 'return { text = { type = "string", default = "default" } }'

local SIGUSR1 = 10
local is_alive = process.is_alive

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function config(text, more)
  return ([[
_format_version: "3.0"
services:
  - name: nowhere
    url: http://127.0.0.1:1
    routes: [{ name: all, paths: ["/"] }]
plugins:
  - { name: answer, config: { text: "%s" } }
%s]]):format(text, more or "")
end

local function answering(handler)
  return { ["handler.lua"] = handler or ANSWER, ["schema.lua"] = SCHEMA }
end

describe("the processes of a gateway", function()
  local gw

  local function start(options)
    options = options or {}
    options.plugins = options.plugins or { answer = answering() }
    gw = gateway.start(options.config or config("one"), options)
    return gw
  end

  after_each(function()
    if gw then gw:stop() end
    gw = nil
  end)

  local function body()
    return gw:get("/").body
  end

  local function becomes(text, seconds)
    process.wait_until(function() return body() == text end, seconds or 5, "the answer " .. text)
  end

  local function status()
    local code, out, err = gw:command("status", "--json")
    assert.equal(0, code, err)
    return cjson.decode(out)
  end

  local function pid_file()
    return tonumber(process.read_file(gw.directory .. "/state/sluice.pid"))
  end

  describe("as they are", function()
    it("show as master and workers", function()
      start { workers = 2 }
      assert.matches("^sluice: master", process.read_file(("/proc/%d/cmdline"):format(gw.process.pid)))
      assert.equal(2, #gw:workers())
    end)

    it("are told by status, with plugins and their versions", function()
      start()
      local state = status()
      assert.equal("running", state.state)
      assert.equal(gw.process.pid, state.pid)
      assert.equal(1, #state.workers)
      assert.equal("live", state.workers[1].state)
      assert.equal(state.generation, state.workers[1].generation)
      assert.equal("answer", state.worker.plugins[1].name)
      assert.equal("1.0.0", state.worker.plugins[1].version)
      local _, screen = gw:command("status")
      assert.matches("\nanswer +1%.0%.0 ", screen)
    end)

    it("hold a lock: a second gateway with the same state_dir does not start", function()
      start()
      local code, _, err = gw:command("run")
      assert.equal(1, code)
      assert.matches("a gateway runs already with state_dir", err, 1, true)
      assert.matches("pid " .. gw.process.pid, err, 1, true)
    end)

    it("end with the master, whatever ends it", function()
      start { workers = 2 }
      local workers = gw:workers()
      gw.process:signal(posix.SIGKILL)
      process.wait_until(function() return not is_alive(workers[1]) and not is_alive(workers[2]) end)
    end)
  end)

  describe("at the start", function()
    local function fails(options)
      options.wait = false
      start(options)
      assert.equal(1, gw.process:wait(10))
      return gw:log()
    end

    it("tell every error of a broken configuration and exit 1", function()
      local log = fails { config = config("one") .. "colour: red\nflavour: sweet\n" }
      assert.matches("sluice.yml:%d+: .*colour", log)
      assert.matches("sluice.yml:%d+: .*flavour", log)
    end)

    it("name file and line of a broken plugin", function()
      local log = fails { plugins = { answer = answering("local x =\n\nreturn x +\n") } }
      assert.matches("answer/handler.lua:%d+: ", log)
    end)

    it("name a folder for their state that cannot be made", function()
      local log = fails { env = { SLUICE_STATE_DIR = "/dev/null/state" } }
      assert.matches("/dev/null/state: cannot make the folder /dev/null: File exists", log, 1, true)
    end)

    it("name an address that is taken", function()
      local port = process.free_port()
      local fd = assert(posix.listen("127.0.0.1", port))
      local log = fails { env = { SLUICE_PROXY_LISTEN = "127.0.0.1:" .. port } }
      posix.C.sys_close_fd(fd)
      local expected = "cannot listen on 127.0.0.1:%d (gateway.proxy_listen): Address already in use"
      assert.matches(expected:format(port), log, 1, true)
    end)
  end)

  describe("when configuration changes", function()
    it("follow a saved file by itself, on the connections that are open", function()
      start()
      local client = gw:connect()
      assert.equal("one", client:request({ path = "/" }).body)
      gw:write_config(config("two"))
      process.wait_until(function() return client:request({ path = "/" }).body == "two" end, 5, "two")
      client:close()
    end)

    it("follow a saved plugin file by itself", function()
      start()
      gw:write_plugin("answer", answering((ANSWER:gsub("conf.text", '"mended " .. conf.text'))))
      becomes("mended one")
    end)

    it("reload by SIGHUP", function()
      start()
      gw.process:signal(posix.SIGHUP)
      gw:wait_log("reason=signal")
      assert.equal("one", body())
    end)

    it("reload by command, which returns once every worker is at the new generation", function()
      start { workers = 2 }
      local before = status().generation
      gw:write_config(config("two"))
      local code, out = gw:command("reload")
      assert.equal(0, code)
      local live = tonumber(out:match("^generation (%d+) is live, %d+ ms\n"))
      assert.is_true(live > before)
      -- The saved file may have been noticed too, and a further generation be on its way.
      for _, worker in ipairs(status().workers) do assert.is_true(worker.generation >= live) end
      for _ = 1, 8 do assert.equal("two", body()) end
    end)

    it("keep what runs when the new one is broken, and say so everywhere, until it is mended", function()
      start()
      gw:write_config(config("two", "colour: red\n"))
      local code, _, err = gw:command("reload")
      assert.equal(1, code)
      assert.matches("sluice.yml:%d+: .*colour", err)
      gw:wait_log("configuration refused at=.*sluice.yml:%d+ .*colour")
      local state = status()
      assert.is_false(state.last_reload.ok)
      assert.equal(8, state.last_reload.errors[1].line)
      local _, screen = gw:command("status")
      assert.matches("THE LAST RELOAD FAILED", screen, 1, true)
      assert.equal("one", body())
      gw:write_config(config("three"))
      becomes("three")
      -- The worker answers from it before the master has heard so.
      process.wait_until(function() return status().last_reload.ok end, 5, "a reload that went well")
      assert.is_false(status().last_failure.ok)
    end)

    it("keep what runs when a plugin breaks, and name file and line", function()
      start()
      gw:write_plugin("answer", answering("return {\n  version = 1,\n"))
      gw:wait_log("reload failed")
      assert.equal("one", body())
      local errors = status().last_reload.errors
      assert.matches("answer/handler.lua:%d+: ", errors[1].message .. cjson.encode(errors))
      gw:write_plugin("answer", answering((ANSWER:gsub("conf.text", '"back"'))))
      becomes("back")
    end)

    it("come to rest at what was saved last, however fast it was saved", function()
      start()
      local before = status().generation
      gw.process:hold() -- the master finds all of them at once, however long it takes to save them
      for index = 1, 20 do gw:write_config(config("version " .. index)) end
      gw.process:go_on()
      becomes("version 20")
      assert.is_true(status().generation <= before + 2)
    end)

    it("listen where the new configuration says, and no longer where the old one did", function()
      local first, second = process.free_port(), process.free_port()
      local function listening(port)
        return config("one", ('gateway: { proxy_listen: ["127.0.0.1:%d"] }\n'):format(port))
      end
      start { config = listening(first), env = { SLUICE_PROXY_LISTEN = false } }
      assert.equal("one", http.get(first, "/").body)
      gw:write_config(listening(second))
      local code, _, err = gw:command("reload")
      assert.equal(0, code, err)
      assert.equal("one", http.get(second, "/").body)
      process.wait_until(function() return not net.connect("127.0.0.1", first) end, 5, "a refused connection")
    end)
  end)

  describe("when a worker dies", function()
    it("start another at once, and refuse no connection meanwhile", function()
      start()
      local worker = gw:workers()[1]
      posix.kill(worker, posix.SIGKILL)
      for _ = 1, 10 do assert.equal(200, gw:get("/").status) end
      assert.not_equal(worker, gw:workers()[1])
      gw:wait_log("worker died worker=1 .*signal 9")
      assert.equal(1, status().workers[1].restarts)
    end)

    it("give it the last good generation, not the broken one", function()
      start()
      gw:write_config(config("two"))
      becomes("two")
      gw:write_config("colour: red\n")
      gw:wait_log("reload failed")
      posix.kill(gw:workers()[1], posix.SIGKILL)
      assert.equal("two", body())
    end)

    it("go on reloading", function()
      start { workers = 2 }
      posix.kill(gw:workers()[1], posix.SIGKILL)
      gw:write_config(config("two"))
      local code, _, err = gw:command("reload")
      assert.equal(0, code, err)
      for _ = 1, 8 do assert.equal("two", body()) end
    end)

    it("take back a generation in which workers die, and name the plugin", function()
      local more = "gateway: { trusted_plugins: [answer] }\n"
      start { config = config("one", more), workers = 2 }
      gw:write_plugin("answer", answering((ANSWER:gsub("return answer\n$",
        "function answer.init_worker() os.exit(3) end\nreturn answer\n"))))
      local code, _, err = gw:command("reload")
      assert.equal(1, code)
      assert.matches("exited with code 3 while it loaded the configuration, in plugin answer", err, 1, true)
      process.wait_until(function()
        local ok, answer = pcall(body) -- a dying worker takes connections along
        return ok and answer == "one"
      end, 10, "the answer of before")
    end)

    it("kill one that is stuck, and name the plugin that was running", function()
      local stuck = 'local stuck = { version = "1.0.0", priority = 20 }\n' ..
        'function stuck.access(_, exchange)\n' ..
        '  if exchange.request:get_header("x-stuck") then os.execute("sleep 30") end\nend\nreturn stuck\n'
      start {
        config = config("one", "  - { name: stuck }\n" ..
          "gateway: { trusted_plugins: [stuck], limits: { watchdog_timeout: 2000 } }\n"),
        plugins = { answer = answering(), stuck = stuck },
      }
      local client = gw:connect()
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Stuck: 1\r\n\r\n")
      local line = gw:wait_log("worker was stuck and has been killed", 10)
      assert.matches("plugin=stuck", line, 1, true)
      client:close()
      assert.equal("one", body())
    end)
  end)

  describe("when they are to end", function()
    it("finish what is in flight, refuse what is new, and exit 0", function()
      start()
      local client = gw:connect()
      client:send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
      gw:wait_log("an answer is waited for")
      gw.process:signal(posix.SIGTERM)
      process.wait_until(function() return not net.connect("127.0.0.1", gw.port) end, 5, "a refused connection")
      assert.is_true(gw.process:is_running())
      client:send("body")
      local response = client:read_response("GET")
      assert.equal(200, response.status)
      assert.equal("one", response.body)
      client:close()
      assert.equal(0, gw.process:wait(5))
      assert.equal("", process.read_file(gw.directory .. "/state/sluice.pid"))
    end)

    it("leave to others what is new, when they are fewer than before", function()
      local function with(workers) return config("one", ("gateway: { workers: %d }\n"):format(workers)) end
      start { config = with(2), env = { SLUICE_WORKERS = false } }
      local held = {}
      process.wait_until(function() -- something in flight in each
        held[#held + 1] = gw:connect()
        held[#held]:send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        local workers = status().workers
        return workers[1].exchanges_open > 0 and workers[2].exchanges_open > 0
      end, 10, "an open exchange in each worker")
      gw:write_config(with(1))
      local code, _, err = gw:command("reload")
      assert.equal(0, code, err)
      for _ = 1, 20 do assert.equal("one", body()) end
      for _, client in ipairs(held) do
        client:send("body")
        assert.equal(200, client:read_response("POST").status)
        client:close()
      end
    end)

    it("wait no longer than drain_timeout", function()
      start { config = config("one", "gateway: { limits: { drain_timeout: 300 } }\n") }
      local client = gw:connect()
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Wait: 60\r\n\r\n")
      process.wait_until(function() return status().workers[1].exchanges_open == 1 end, 5, "an open exchange")
      gw.process:signal(posix.SIGTERM)
      assert.equal(0, gw.process:wait(5))
      client:close()
    end)

    it("are not said to be late by a master that stood still itself", function()
      start { config = config("one", "gateway: { limits: { drain_timeout: 300 } }\n") }
      local client, worker = gw:connect(), gw:workers()[1]
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Wait: 60\r\n\r\n")
      process.wait_until(function() return status().workers[1].exchanges_open == 1 end, 5, "an open exchange")
      gw.process:signal(posix.SIGTERM)
      process.wait_until(function() return not net.connect("127.0.0.1", gw.port) end, 5, "a refused connection")
      gw.process:hold()
      process.wait_until(function() return not is_alive(worker) end, 5, "the worker's end")
      posix.pause(2) -- longer than the worker had, and than the master ever takes
      gw.process:go_on()
      assert.equal(0, gw.process:wait(5))
      assert.is_nil(gw:log():find("has been killed", 1, true))
      client:close()
    end)

    it("end at once at a second signal", function()
      start()
      local client = gw:connect()
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Wait: 60\r\n\r\n")
      process.wait_until(function() return status().workers[1].exchanges_open == 1 end, 5, "an open exchange")
      gw.process:signal(posix.SIGTERM)
      gw:wait_log("draining")
      gw.process:signal(posix.SIGTERM)
      assert.equal(0, gw.process:wait(5))
      assert.is_nil(gw:log():find("has been killed", 1, true)) -- the worker ends what it has in order
      client:close()
    end)

    it("are told so by quit, which returns when they have gone", function()
      start()
      assert.equal(0, (gw:command("quit")))
      assert.equal(0, gw.process:wait(5))
    end)
  end)

  describe("in the background", function()
    local function command(name, ...)
      return gw:command(name, ...)
    end

    local function prepare()
      start { wait = false }
      gw.process:stop()
    end

    it("start, answer, write a log of their own, and stop", function()
      prepare()
      local code, _, err = command("start")
      assert.equal(0, code, err)
      local pid = pid_file()
      local log = gw.directory .. "/state/sluice.log"
      finally(function() if is_alive(pid) then posix.kill(pid, posix.SIGKILL) end end)
      assert.equal("one", body())
      assert.matches("generation is live", process.read_file(log), 1, true)
      os.rename(log, log .. ".1")
      posix.kill(pid, SIGUSR1)
      process.wait_until(function() return exists(log) end, 5, "a new log")
      assert.equal(0, (command("stop")))
      process.wait_until(function() return not is_alive(pid) end, 5, "its end")
      assert.matches("stopping", process.read_file(log), 1, true)
    end)

    it("say on the terminal why they could not start", function()
      prepare()
      gw:write_config("colour: red\n")
      local code, _, err = command("start")
      assert.equal(1, code)
      assert.matches("colour", err, 1, true)
    end)

    it("can be told to end before they have started", function()
      start {
        wait = false, config = config("one", "gateway: { trusted_plugins: [answer] }\n"),
        plugins = { answer = answering((ANSWER:gsub("return answer\n$",
          "function answer.init_worker() os.execute('sleep 10') end\nreturn answer\n"))) },
      }
      process.wait_until(function() return exists(gw.directory .. "/state/sluice.pid") end, 5, "a pid file")
      assert.matches("not started yet", select(3, command("upgrade")), 1, true)
      assert.equal(0, (command("stop")))
      assert.equal(0, gw.process:wait(5))
    end)

    it("cannot be asked for when they do not run", function()
      prepare()
      for _, name in ipairs { "status", "reload", "quit", "stop", "upgrade" } do
        local code, _, err = command(name)
        assert.equal(1, code)
        assert.matches("no gateway runs here", err, 1, true)
      end
    end)
  end)

  describe("when the binary is replaced", function()
    local copy

    -- A gateway of a binary that can be replaced.
    local function start_copy()
      start { wait = false }
      gw.process:stop()
      copy = gw.directory .. "/sluice"
      assert.equal(0, os.execute(("cp '%s' '%s'"):format(gateway.binary, copy)))
      gw.process = process.start({ copy, "run", "-c", gw.config_path },
        { env = gw.env, directory = gw.directory, owns_directory = true, cwd = gw.directory })
      gw:wait_ready()
    end

    local function replace(text)
      process.write_file(copy .. ".new", text)
      assert.equal(0, os.execute(("chmod +x '%s.new' && mv '%s.new' '%s'"):format(copy, copy, copy)))
    end

    it("hand the sockets over without a failed request, and the old ones drain and go", function()
      start_copy()
      local old = gw.process.pid
      local slow = gw:connect()
      slow:send("GET / HTTP/1.1\r\nHost: a\r\nX-Wait: 1\r\n\r\n")
      gw:wait_log("an answer is waited for")
      replace(process.read_file(gateway.binary))
      local upgrade = process.start({ gateway.binary, "upgrade", "-c", gw.config_path },
        { env = gw.env, cwd = gw.directory })
      finally(function()
        upgrade:forget()
        local new = pid_file()
        if not new or new == old then return end
        posix.kill(new, posix.SIGTERM)
        process.wait_until(function() return not is_alive(new) end, 10, "the end of the new process")
      end)
      local requests = 0
      while gw.process:is_running() or requests < 50 do
        assert.equal("one", body())
        requests = requests + 1
        if requests > 20 and upgrade.status and slow then
          assert.equal(200, slow:read_response("GET").status)
          slow:close()
          slow = nil
        end
        upgrade:is_running()
      end
      assert.equal(0, upgrade:wait(5), upgrade:stderr())
      assert.equal(0, gw.process.status)
      assert.not_equal(old, pid_file())
      assert.equal(pid_file(), status().pid)
    end)

    it("go on when the new one does not come up, and say why", function()
      start_copy()
      replace("#!/bin/sh\nexit 7\n")
      local code, _, err = gw:command("upgrade")
      assert.equal(1, code)
      assert.matches("the new process exited with code 7", err, 1, true)
      gw:wait_log("upgrade failed, this process goes on")
      assert.equal("one", body())
      assert.equal(gw.process.pid, status().pid)
    end)

    it("go on when the new one refuses the configuration", function()
      start_copy()
      gw:write_config("colour: red\n")
      local code, _, err = gw:command("upgrade")
      assert.equal(1, code)
      assert.matches("colour", err, 1, true)
      assert.equal("one", body())
    end)
  end)
end)
