-- SPDX-License-Identifier: Apache-2.0
-- Questions to consumer instances, whichever worker has them: each belongs to the one that its name's hash says, and a
-- client's next connection may come to any.
local instances = require "kafka-rest.instances"
local json = require "sluice.json"
local peers = require "sluice.peers"
local sluice = require "sluice"

local remote = {}

local NAME = "kafka-rest"

local encode, decode = sluice.crypto.base64_encode, sluice.crypto.base64_decode

-- JSON carries texts: what may be any bytes crosses in base64.
local function pack_record(record)
  local headers = {}
  for i, header in ipairs(record.headers or headers) do
    headers[i] = { encode(header[1]), header[2] and encode(header[2]) or nil }
  end
  return { topic = record.topic, partition = record.partition, offset = record.offset, timestamp = record.timestamp,
    key = record.key and encode(record.key), value = record.value and encode(record.value), headers = headers }
end

local function unpack_record(record)
  for _, header in ipairs(record.headers) do
    header[1], header[2] = decode(header[1]), header[2] and decode(header[2])
  end
  record.key, record.value = record.key and decode(record.key), record.value and decode(record.value)
  return record
end

local function each(list, change)
  for i, record in ipairs(list or {}) do list[i] = change(record) end
end

local function serve(text)
  local question = json.decode(text)
  local answer = instances.run(question.operation, question.key, question.args)
  each(answer.records, pack_record)
  return json.encode(answer)
end

function remote.serve()
  peers.serve(NAME, serve)
end

-- Which instance is meant.
---@return string
function remote.key(cluster, group, name)
  return cluster .. "\0" .. group .. "\0" .. name
end

---@param operation string see instances.lua
---@param key string
---@param args table
---@param seconds number
---@return table
function remote.run(operation, key, args, seconds)
  local owner = peers.owner(key)
  if owner == peers.self() then return instances.run(operation, key, args) end
  local text, err = peers.call(owner, NAME, json.encode { operation = operation, key = key, args = args }, seconds)
  if not text then return { error = "timeout", text = "the worker that has the instance does not answer: " .. err } end
  local answer = json.decode(text)
  each(answer.records, unpack_record)
  return answer
end

return remote
