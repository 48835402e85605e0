-- SPDX-License-Identifier: Apache-2.0
-- `sluice password`: makes the hash of a password, for basicauth_credentials in a configuration.
local options = require "sluice.cli.options"
local password = require "sluice.config.password"

local command = {}

local RANDOM_BYTES = 16

local flags = { { "--cost", key = "cost", value = "N" } }

local function random_bytes()
  local file = assert(io.open("/dev/urandom", "rb"))
  file:setvbuf("no")
  local bytes = file:read(RANDOM_BYTES)
  file:close()
  return bytes
end

local function cost_of(text)
  if not text then return password.COST end
  local cost = tonumber(text)
  if cost and cost % 1 == 0 and cost >= 1 and cost <= password.COSTS then return cost end
  options.fail(("--cost: expected an integer from 1 to %d, found %s"):format(password.COSTS, text))
end

-- Typed passwords are not shown.
local function read()
  if os.execute("test -t 0") ~= 0 then return io.read("*l") end
  io.stderr:write("Password: ")
  os.execute("stty -echo </dev/tty 2>/dev/null")
  local text = io.read("*l")
  os.execute("stty echo </dev/tty 2>/dev/null")
  io.stderr:write("\n")
  return text
end

---@param args string[]
---@return integer
function command.run(args)
  local parsed = options.parse(args, flags, 0)
  local cost = cost_of(parsed.cost)
  local hash, expected = password.make(read() or "", random_bytes(), cost)
  if not hash then
    io.stderr:write("sluice: expected ", expected, "\n")
    return 1
  end
  io.write(hash, "\n")
  return 0
end

return command
