-- SPDX-License-Identifier: Apache-2.0
-- Records as Lua sees them.

local ffi = require "ffi"

local ffi_string, tonumber = ffi.string, tonumber

local record = {}

---@class sluice.kafka.record one that came from a reader is shared by all readers of the topic: not to be changed
---@field topic string
---@field partition integer
---@field offset integer
---@field timestamp number milliseconds since 1970, -1: none
---@field key string|nil
---@field value string|nil
---@field headers table[] list of { name, value }

local function text_in(bytes)
  if bytes.data == nil then return nil end
  return ffi_string(bytes.data, bytes.len)
end

function record.new(view)
  local headers = {}
  for i = 0, tonumber(view.header_count) - 1 do
    headers[i + 1] = { text_in(view.headers[2 * i]), text_in(view.headers[2 * i + 1]) }
  end
  return {
    topic = ffi_string(view.topic), partition = view.partition, offset = view.offset, timestamp = view.timestamp_ms,
    key = text_in(view.key), value = text_in(view.value), headers = headers,
  }
end

-- Readers of a topic get one record after the other nearly at the same time: the table is made once.
local shared = setmetatable({}, { __mode = "v" })

function record.shared(view)
  local serial = tonumber(view.serial)
  local one = shared[serial]
  if not one then
    one = record.new(view)
    shared[serial] = one
  end
  return one
end

return record
