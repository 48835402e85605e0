-- SPDX-License-Identifier: Apache-2.0
-- What `require "sluice"` gives to plugins: all that needs no exchange. A part is loaded when it is first used.

local PARTS = {}
for _, name in ipairs(require("sluice.parts").parts) do PARTS[name] = "sluice." .. name end
PARTS.table = "sluice.tables"

-- Modules that know whom they work for: their functions are bound to the plugin.
local BOUND = { file = true, grpc = true, log = true, protobuf = true, queue = true, timer = true }

---@class sluice
---@field authentication table
---@field avro sluice.avro
---@field budget sluice.budget
---@field cache sluice.cache
---@field circuit table
---@field certificate sluice.certificate
---@field cloudevents sluice.cloudevents
---@field counters sluice.counters
---@field crypto sluice.crypto
---@field datagram sluice.datagram
---@field dns sluice.dns
---@field file sluice.file
---@field grpc sluice.grpc
---@field http sluice.http
---@field ip sluice.ip
---@field json table
---@field json_edits table
---@field jwks sluice.jwks
---@field jwt sluice.jwt
---@field kafka table
---@field leases sluice.leases
---@field lock sluice.lock
---@field log sluice.log
---@field metrics sluice.metrics
---@field multipart table
---@field node table
---@field otlp sluice.otlp
---@field protobuf sluice.protobuf
---@field query table
---@field queue sluice.queue
---@field random fun(low?: integer, high?: integer): number
---@field recent sluice.recent
---@field redis sluice.redis
---@field regex sluice.regex
---@field schema_registry sluice.schema_registry
---@field serde sluice.serde
---@field sleep fun(seconds: number)
---@field store sluice.store
---@field table table
---@field tcp sluice.tcp
---@field time table
---@field timer sluice.timer
---@field tracing sluice.tracing
---@field uuid table
---@field vault table

local function make(owner)
  local sluice = {}
  return setmetatable(sluice, { __index = function(self, name)
    local path = PARTS[name]
    if not path then return nil end
    local part = require(path)
    if owner and BOUND[name] then part = part.bind(name == "log" and owner.name or owner) end
    rawset(self, name, part)
    return part
  end })
end

local sluice = make(nil)

-- The same for one plugin, so that its timers end with it and its log lines name it.
---@param owner { name: string, version: string }
---@return sluice
function sluice.bind(owner)
  return make(owner)
end

return sluice
