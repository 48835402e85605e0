-- SPDX-License-Identifier: Apache-2.0
-- The program behind spec.support.relay: one loop over poll, two coroutines a connection.
--   luajit spec/support/relay_server.lua PORT TO_PORT [SERVER [AUTHORIZATION]]
-- With SERVER it is an HTTP proxy that opens a tunnel to that one (name and port), for those who say AUTHORIZATION.
package.path = "./?.lua;" .. package.path

local ffi = require "ffi"
local net = require "spec.support.net"
local posix = require "spec.support.posix"

local C = posix.C
local port, to_port, server, authorization = tonumber(arg[1]), tonumber(arg[2]), arg[3], arg[4]
local waiting = {} -- coroutine -> { fd, events }
local FOREVER = 1e9

function net.wait(fd, events)
  waiting[coroutine.running()] = { fd, events }
  return coroutine.yield()
end

local function resume(thread)
  waiting[thread] = nil
  local ok, why = coroutine.resume(thread, true)
  if not ok then io.stderr:write(debug.traceback(thread, tostring(why)), "\n") end
end

local function pump(from, to, ended)
  while true do
    local data = from:receive_some(FOREVER)
    if not data or not to:send(data, FOREVER) then break end
  end
  ended()
end

-- Whether who came may go through, who has been told.
local function is_let_through(near)
  local head = near:receive_until("\r\n\r\n", FOREVER)
  if not head then return false end
  local asks, said = head:match("^CONNECT (%S+) HTTP/1%.1\r\n"), head:match("\r\nProxy%-Authorization: ([^\r]*)\r\n")
  local status = asks ~= server and "403 Forbidden" or said ~= authorization and "407 Who are you" or "200 Connected"
  near:send("HTTP/1.1 " .. status .. "\r\n\r\n", FOREVER)
  return status:sub(1, 3) == "200"
end

local function carry(fd)
  local near = net.wrap(fd, FOREVER)
  if server and not is_let_through(near) then return near:close() end
  local far = net.connect("127.0.0.1", to_port, { timeout = FOREVER })
  if not far then return near:reset() end
  local over = false
  -- Whoever waits for the other end finds it shut.
  local function ended()
    if over then return end
    over = true
    C.sys_shutdown(near.fd, 2)
    C.sys_shutdown(far.fd, 2)
  end
  local back = coroutine.create(function() pump(far, near, ended) end)
  resume(back)
  pump(near, far, ended)
  while coroutine.status(back) ~= "dead" do net.wait(far.fd, posix.POLLIN) end
  near:close()
  far:close()
end

local listener = assert(posix.listen("127.0.0.1", port))
resume(coroutine.create(function()
  while true do
    local fd = posix.accept(listener)
    if fd >= 0 then
      resume(coroutine.create(function() carry(fd) end))
    else
      net.wait(listener, posix.POLLIN)
    end
  end
end))

while true do
  local threads = {}
  for thread, wait in pairs(waiting) do threads[#threads + 1] = { thread, wait } end
  local fds = ffi.new("struct sys_pollfd[?]", #threads)
  for i, entry in ipairs(threads) do fds[i - 1].fd, fds[i - 1].events = entry[2][1], entry[2][2] end
  C.sys_poll(fds, #threads, -1)
  for i, entry in ipairs(threads) do
    if fds[i - 1].revents ~= 0 and waiting[entry[1]] == entry[2] then resume(entry[1]) end
  end
end
