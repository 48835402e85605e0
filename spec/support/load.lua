-- SPDX-License-Identifier: Apache-2.0
-- Clients that ask again and again, each on a connection of its own in a process of its own, until a file appears:
--
--   local load = require("spec.support.load").start(port, "/path", 4)
--   ... load:asked(100) ...                 -- waits until so many more have been answered
--   local counts = load:stop()              -- by status; "failed": connections that broke
--
-- As a program: luajit spec/support/load.lua PORT PATH DIRECTORY NUMBER
local program = arg and (arg[0] or ""):match("load%.lua$")
if program then package.path = "./?.lua;" .. package.path end

local cjson = require "cjson"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local load = {}

local running = {}
running.__index = running

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function ask(port, path, directory, number)
  local counts, client, asked = {}, nil, 0
  while not exists(directory .. "/stop") do
    client = client or http.connect(port)
    local response = client and client:request { path = path }
    local key = response and tostring(response.status) or "failed"
    counts[key] = (counts[key] or 0) + 1
    asked = asked + 1
    if not response or (response.headers.connection or "") == "close" then
      if client then client:close() end
      client = nil
    end
    if asked % 10 == 0 then process.write_file(directory .. "/asked." .. number, tostring(asked)) end
  end
  io.write(cjson.encode(counts), "\n")
end

function load.start(port, path, clients)
  local self = setmetatable({ directory = posix.temporary_directory(), children = {} }, running)
  for i = 1, clients do
    self.children[i] = process.start { "luajit", "spec/support/load.lua", port, path, self.directory, i }
  end
  return self
end

function running:total()
  local total = 0
  for i = 1, #self.children do
    local path = self.directory .. "/asked." .. i
    total = total + (exists(path) and tonumber(process.read_file(path)) or 0)
  end
  return total
end

function running:asked(more)
  local before = self:total()
  process.wait_until(function() return self:total() >= before + more end, 20, "answers under load")
end

function running:stop()
  process.write_file(self.directory .. "/stop", "")
  local counts = {}
  for _, child in ipairs(self.children) do
    child:wait(10)
    for status, count in pairs(cjson.decode(child:stdout())) do counts[status] = (counts[status] or 0) + count end
    child:forget()
  end
  process.remove(self.directory)
  return counts
end

if program then
  ask(tonumber(arg[1]), arg[2], arg[3], arg[4])
  return
end

return load
