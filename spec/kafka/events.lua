-- SPDX-License-Identifier: Apache-2.0
-- A client of server-sent events in a spec: reads a stream event by event, as a browser's EventSource would.
local http = require "spec.support.http"
local posix = require "spec.support.posix"

local events = {}

local stream = {}
stream.__index = stream

-- Opens `path`; a response that is no stream comes as a second value instead.
function events.open(port, path, headers)
  local client = assert(http.connect(port, { timeout = 40 })) -- more than the gateway takes to find the topic
  client:send((http.format({ path = path, headers = headers }, "127.0.0.1:" .. port)))
  local head = assert(client:read_head())
  if head.headers["content-type"] ~= "text/event-stream" then
    local response = http.read_body(client.socket, head, true)
    client:close()
    return nil, response
  end
  return setmetatable({ client = client, head = head, text = "", comments = 0 }, stream)
end

local function parse(block)
  local event, data = {}, {}
  for line in (block .. "\n"):gmatch("([^\n]*)\n") do
    local name, value = line:match("^(%a+): ?(.*)$")
    if name == "data" then
      data[#data + 1] = value
    elseif name then
      event[name] = value
    end
  end
  if #data == 0 then return nil end
  event.data = table.concat(data, "\n")
  return event
end

-- The next event { id, event, data }; comments are counted and passed over. nil and why: the stream ended.
function stream:next(seconds)
  local deadline = posix.now() + (seconds or 20)
  while true do
    local block, rest = self.text:match("^(.-)\n\n(.*)$")
    if block then
      self.text = rest
      local event = parse(block)
      if event then return event end
      self.comments = self.comments + 1
    else
      if posix.now() > deadline then return nil, "timeout" end
      local line, why, partial = self.client.socket:receive_line(math.max(deadline - posix.now(), 0.01))
      if not line then
        self.client.socket:unread(partial)
        return nil, why
      end
      local size = tonumber(line:match("^%x+"), 16)
      if size == 0 then return nil, "end" end
      self.text = self.text .. assert(self.client.socket:receive_exact(size + 2)):sub(1, -3)
    end
  end
end

function stream:close()
  self.client:close()
end

return events
