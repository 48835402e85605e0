-- SPDX-License-Identifier: Apache-2.0
-- A newcomer pastes what README.md shows, and sees what README.md says: every console block is run against the demo,
-- that of a plugin against the configuration which stands above it.
local gateway = require "spec.support.gateway"
local greeter = require "spec.support.greeter"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local home = os.getenv("SLUICE_HOME") or assert(io.popen("pwd")):read("*l")
local stream_port = process.free_port() -- for what the demo has at 9000

-- The commands of the console blocks: { command, expected }, where "…" stands for anything.
local function console_lines(text)
  local list = {}
  for block in text:gmatch("```console\n(.-)```") do
    for line in block:gmatch("[^\n]+") do
      local command = line:match("^%$ (.*)")
      if command then
        list[#list + 1] = { command = command, expected = {} }
      else
        table.insert(list[#list].expected, line)
      end
    end
  end
  return list
end

local function to_pattern(lines)
  local pattern = table.concat(lines, "\n"):gsub("%p", "%%%0"):gsub("…", ".*")
  -- A line of "…" alone may stand for no line at all.
  return "^" .. pattern:gsub("\n%.%*", ".*"):gsub("%.%*\n", ".*") .. "\n?$"
end

-- Runs a command with the ports of `gw`, and compares what it prints.
local function assert_shows(gw, entry)
  local command = entry.command:gsub("localhost:8000", "127.0.0.1:" .. gw.port)
    :gsub("localhost:8007", "127.0.0.1:" .. gw.status_port):gsub("localhost:9000", "127.0.0.1:" .. stream_port)
  local _, out = process.run({ "sh", "-c", command .. " 2>/dev/null" }, { cwd = gw.directory })
  assert.matches(to_pattern(entry.expected), (out:gsub("\r", "")))
end

-- The demo's functions, by their paths beside its configuration.
local function demo_files()
  local files = {}
  for path in io.popen("cd bin/demo && find shop -name '*.lua'"):lines() do
    files[path] = process.read_file("bin/demo/" .. path)
  end
  return files
end

describe("the README", function()
  local gw

  setup(function()
    local text = process.read_file("bin/demo/sluice.yml")
    gw = gateway.start(function(self)
      return (text:gsub(":8000", ":" .. self.port):gsub("([: ])9000", "%1" .. stream_port))
    end, {
      env = { SLUICE_STREAM_LISTEN = "127.0.0.1:" .. stream_port },
      files = demo_files(),
      plugins = { echo = {
        ["handler.lua"] = process.read_file("bin/demo/plugins/echo/handler.lua"),
        ["schema.lua"] = process.read_file("bin/demo/plugins/echo/schema.lua"),
      } },
    })
  end)
  teardown(function()
    if gw then gw:stop() end
  end)

  for _, entry in ipairs(console_lines(process.read_file("README.md"))) do
    it("shows what comes of " .. entry.command, function()
      assert_shows(gw, entry)
    end)
  end
end)

describe("a whole configuration in the README", function()
  local number = 0
  for block in process.read_file("README.md"):gmatch("```yaml\n(.-)```") do
    number = number + 1
    if block:find("^_format_version") then
      it("is one, number " .. number, function()
        local folder = posix.temporary_directory()
        process.write_file(folder .. "/sluice.yml", block)
        local status, _, err = process.run({ gateway.binary, "check", folder .. "/sluice.yml" },
          { env = { SLUICE_HOME = home } })
        process.remove(folder)
        assert.equal(0, status, err)
      end)
    end
  end
end)

-- Files beside the configuration: each begins with a comment that names it.
local function files_of(text)
  local files = {}
  for block, name in text:gmatch("```protobuf\n(// ([%w_./-]+)\n.-)```") do files[name] = block end
  for block, name in text:gmatch("```lua\n(%-%- ([%w_-]+/[%w_./-]+%.lua)\n.-)```") do files[name] = block end
  return files
end

describe("a README of a plugin", function()
  it("has no commands that nobody runs", function()
    for path in io.popen("ls plugins/*/README.md"):lines() do
      for language, line in process.read_file(path):gmatch("\n```(%w*)\n([^\n]*)") do
        assert.is_false(line:sub(1, 2) == "$ " and language ~= "console", path .. ": " .. line)
      end
    end
  end)
end)

local function echo(_, connection)
  require("spec.support.websocket").echo(connection)
end

-- What a configuration's service at port 9000 has to be.
local function service_for(config)
  if config:find("grpc://localhost:9000", 1, true) then return greeter.start() end
  if config:find("http://localhost:9000", 1, true) then return upstream.start(echo) end
end

describe("the README of", function()
  for path in io.popen("ls plugins/*/README.md"):lines() do
    local text = process.read_file(path)
    local config, commands = text:match("```yaml\n(.-)```"), console_lines(text)
    if config and #commands > 0 then
      it(path:match("plugins/([^/]+)") .. " shows what comes of its commands", function()
        local service = service_for(config)
        if service then config = config:gsub("localhost:9000", "127.0.0.1:" .. service.port) end
        config = config:gsub("([ :])9000", "%1" .. stream_port)
        local gw = gateway.start(function(self)
          return (config:gsub("localhost:8000", "127.0.0.1:" .. self.port))
        end, { files = files_of(text) })
        local counts = config:find("minute:", 1, true) or config:find("day:", 1, true)
        if counts then process.clear_of_the_minute() end
        local ok, why = pcall(function()
          for _, entry in ipairs(commands) do assert_shows(gw, entry) end
        end)
        gw:command("stop") -- at once: connections at rest, some are of the gateway to itself, would be given a second
        gw:stop()
        if service then service:stop() end
        if not ok then error(why, 0) end
      end)
    end
  end
end)
