-- SPDX-License-Identifier: Apache-2.0
-- GET /shop/flow/ID: what has happened under a correlation id, out of the topics, and the spans of its trace. Waits
-- until the parcel is on its way, for ten seconds at most.
local json = require "sluice.json"
local kafka = require "sluice.kafka"
local time = require "sluice.time"

local TOPICS, SPANS, LAST = { "shop.orders", "shop.payments", "shop.shipments", "shop.spans" }, "shop.spans",
  "shop.shipments"
local QUIET_S, PATIENCE_S = 0.7, 9
local MOST = 10000 -- records that are looked at

local function header(record, name)
  for _, one in ipairs(record.headers) do
    if one[1] == name then return one[2] end
  end
end

-- Events of that id by topic, and all spans.
local function look(id)
  local reader, err = kafka.reader { topics = TOPICS, from = "earliest" }
  if not reader then return nil, err end
  local events, spans, deadline = {}, {}, time.monotonic() + PATIENCE_S
  for _ = 1, MOST do
    local record = reader:next(QUIET_S)
    if not record and (events[LAST] or time.monotonic() > deadline) then break end
    if record and record.topic == SPANS then
      for _, span in ipairs(json.decode(record.value) or {}) do spans[#spans + 1] = span end
    elseif record and header(record, "correlation-id") == id then
      events[record.topic] = { name = json.decode(record.value).event, context = header(record, "traceparent") or "" }
    end
  end
  reader:close()
  return events, spans
end

local function put_tree(out, spans, known, parent, indent)
  for _, span in ipairs(spans) do
    if (known[span.parentId or ""] and span.parentId or nil) == parent then
      out[#out + 1] = ("%s%s (%s)"):format(indent, span.name, (span.kind or "internal"):lower())
      put_tree(out, spans, known, span.id, indent .. "  ")
    end
  end
end

local function put_trace(out, spans, trace)
  local list, known = {}, {}
  for _, span in ipairs(spans) do
    if span.traceId == trace then list[#list + 1], known[span.id] = span, true end
  end
  table.sort(list, function(a, b) return a.timestamp < b.timestamp end)
  put_tree(out, list, known, nil, "  ")
end

return { GET = function(exchange)
  local events, spans = look(exchange.request:get_path():match("([^/]+)$"))
  if not events then return 503, { message = spans } end
  local out, trace = {}, nil
  for _, topic in ipairs(TOPICS) do
    local event = events[topic]
    if event then
      out[#out + 1] = ("%-13s %-15s %s"):format(event.name, topic, event.context)
      trace = trace or event.context:match("^%x+%-(%x+)")
    end
  end
  if trace then put_trace(out, spans, trace) end
  return 200, table.concat(out, "\n") .. "\n", { ["Content-Type"] = "text/plain" }
end }
