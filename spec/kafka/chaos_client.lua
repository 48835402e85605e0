-- SPDX-License-Identifier: Apache-2.0
-- One producer of spec.kafka.chaos: records of its own key, one after the other, each sent once, until it is told to
-- stop; and a line for each with what the gateway said: "number status partition offset code", status 0 where the
-- connection ended without an answer.
--   luajit spec/kafka/chaos_client.lua PORT PATH KEY STOP_FILE OUT_FILE
package.path = "./?.lua;" .. package.path

local cjson = require "cjson"
local http = require "spec.support.http"
local posix = require "spec.support.posix"

local port, path, key, stop_file = tonumber(arg[1]), arg[2], arg[3], arg[4]
local out = assert(io.open(arg[5], "w"))
local ANSWER_SECONDS = 60

local function stopped()
  local file = io.open(stop_file)
  if file then file:close() end
  return file ~= nil
end

local connection

local function connect()
  while not connection and not stopped() do
    connection = http.connect(port, { timeout = ANSWER_SECONDS })
    if not connection then posix.pause(0.01) end
  end
  return connection
end

local function disconnect()
  connection.socket:close()
  connection = nil
end

local function note(number, status, answer)
  out:write(("%d %d %d %d %s\n"):format(number, status, answer.partition or -1, answer.offset or -1,
    answer.code or "-"))
  out:flush()
end

local number = 0
while connect() do
  number = number + 1
  local response = connection:request { path = path, headers = { ["X-Key"] = key }, body = key .. " " .. number }
  if response then
    local ok, answer = pcall(cjson.decode, response.body)
    note(number, response.status, ok and answer or {})
    if response.status ~= 200 then posix.pause(0.01) end -- a client that is refused waits a little
    if (response.headers.connection or ""):lower() == "close" then disconnect() end
  else
    note(number, 0, {})
    disconnect()
  end
  if number % 16 == 0 and stopped() then break end
end
out:close()
