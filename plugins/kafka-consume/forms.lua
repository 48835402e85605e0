-- SPDX-License-Identifier: Apache-2.0
-- The forms in which records are streamed, and ids as positions.
--
--   server-sent events (the HTML standard, 9.2)       NDJSON
--   id: 2/41,0/7                                      {"topic":"orders","partition":2,"offset":41,...}
--   data: the value
--
-- The id: this is offset 41 of partition 2; of partition 0 the last one had offset 7.
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local message = require "kafka-consume.message"

local forms = {}

local SLOTS_MOST = 65536

-- Each line of a text needs its own field, and CR ends a line too.
local function data(text)
  if text:find("\r", 1, true) then text = text:gsub("\r\n?", "\n") end
  if text:find("\n", 1, true) then text = text:gsub("\n", "\ndata: ") end
  return "data: " .. text .. "\n\n"
end

local function positions_by_label(source, positions)
  local found = {}
  for slot, label in ipairs(source.labels) do found[label:sub(1, -2)] = positions[slot] end
  return found
end

-- Positions by slot as clients are told them. The slot of the record that they are told with comes first: a reader of
-- the id sees where it was.
---@param slot integer|nil
function forms.place(positions, labels, slot)
  local parts = slot and { labels[slot] .. ("%d"):format(positions[slot] - 1) } or {}
  for other, label in ipairs(labels) do
    if other ~= slot then parts[#parts + 1] = label .. ("%d"):format(positions[other] - 1) end
  end
  return table.concat(parts, ",")
end

-- ---- Server-sent events ------------------------------------------------------------------------------------------

local events = { ids = true, name = "server-sent events",
  -- Nothing on the way may keep or gather events.
  headers = { ["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-store", ["X-Accel-Buffering"] = "no" },
  heartbeat = ":\n\n", -- a comment: keeps proxies and clients from giving up
}
forms.events = events

-- A record as an event without the id; nil: it cannot be told.
function events.render(conf, record)
  if conf.event ~= "value" then
    local text = message.encode(conf, record)
    return text and data(text)
  end
  local value = record.value
  if type(value) == "table" then value = json.encode(value) end
  if type(value) == "string" and not json.is_text(value) then
    return "event: base64\n" .. data(crypto.base64_encode(value)) -- what is sent is UTF-8
  end
  return data(value == nil and "null" or tostring(value))
end

function events.id(source, slot)
  return "id: " .. forms.place(source:positions(), source.labels, slot) .. "\n"
end

-- Records were lost to this reader: where it goes on.
function events.gap(source, positions)
  return "event: gap\n" .. data(json.encode({ positions = positions_by_label(source, positions) }))
end

-- The stream ends here, and this is why.
function events.failure(err)
  return "event: error\n" .. data(json.encode({ message = err }))
end

-- ---- Lines -------------------------------------------------------------------------------------------------------

local lines = { ids = false, name = "NDJSON",
  headers = { ["Content-Type"] = "application/x-ndjson", ["Cache-Control"] = "no-store", ["X-Accel-Buffering"] = "no" },
  heartbeat = "\n", -- readers of NDJSON pass over empty lines
}
forms.lines = lines

function lines.render(conf, record)
  local text = message.encode(conf, record)
  return text and text .. "\n"
end

function lines.gap(source, positions)
  return json.encode({ gap = { positions = positions_by_label(source, positions) } }) .. "\n"
end

function lines.failure(err)
  return json.encode({ error = { message = err } }) .. "\n"
end

-- ---- Ids ---------------------------------------------------------------------------------------------------------

-- Offsets to go on from, by topic and partition; nil when the id is not one of ours. With one topic configured its
-- name may be left out.
---@param id string
---@param topics table<string, true>
---@param only string|nil the one topic
function forms.positions(id, topics, only)
  local found, count = {}, 0
  for part in (id .. ","):gmatch("([^,]*),") do
    local topic, partition, offset = part:match("^([%w._-]+)/(%d+)/(%-?%d+)$")
    if not topic then
      topic = only
      partition, offset = part:match("^(%d+)/(%-?%d+)$")
    end
    partition, offset = tonumber(partition), tonumber(offset)
    if not partition or not topics[topic] then return nil end
    if partition >= 2 ^ 31 or offset < -1 or offset >= 2 ^ 53 - 1 then return nil end
    count = count + 1
    if count > SLOTS_MOST then return nil end
    found[topic] = found[topic] or {}
    found[topic][partition] = offset + 1
  end
  return found
end

return forms
