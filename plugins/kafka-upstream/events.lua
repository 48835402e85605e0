-- SPDX-License-Identifier: Apache-2.0
-- CloudEvents in requests: those that are events become records that are, and others are made into events where the
-- configuration says what they are.
local cloudevents = require "sluice.cloudevents"
local sources = require "kafka-upstream.sources"

local events = {}

local WRAPPED = { "id", "source", "type", "subject" }

local function refuse(err, attribute)
  sources.refuse(400, "the request is no CloudEvent", { error = err, field = attribute ~= "none" and attribute or nil })
end

local function with_event(values, event)
  local own = sources.element(values, event.data or "")
  own.event = event
  return own
end

-- Reads what says that it is an event, or a batch of them: values of a batch's events, or of the only one; nil: it says
-- nothing of that kind.
---@param options { most: integer, pause: fun(), too_many: fun() } events of a batch; called between pieces of a long
--- work; called when there are more, raises
---@return fun(values: table): table[]|nil, table|nil
function events.reader(options)
  return function(values)
    local headers = values.exchange.request:get_headers(1000)
    local list, err, attribute, mode = cloudevents.from_http(headers, values.text, options)
    if not list then
      if attribute == "many" then options.too_many() end
      if attribute ~= "none" then refuse(err, attribute) end
      return nil
    end
    if mode ~= "batched" then return nil, with_event(values, list[1]) end
    for i = 1, #list do list[i] = with_event(values, list[i]) end
    return list
  end
end

-- A request, or an element of a batch, becomes the data of an event.
local function wrapper(conf)
  if not conf.type then return nil end
  local made = {}
  for _, name in ipairs(WRAPPED) do
    if conf[name] then made[name] = sources.compile(conf[name], "cloudevents." .. name) end
  end
  return function(values)
    local event = { data = values.text ~= "" and values.text or nil }
    for _, name in ipairs(WRAPPED) do
      if made[name] then event[name] = sources.text(made[name](values)) end
    end
    event.datacontenttype = values.request and "application/json"
      or values.exchange.request:get_header("content-type")
    local _, err, attribute = cloudevents.new(event)
    if err then sources.refuse(422, "config.cloudevents makes no event of this request",
      { error = err, field = "cloudevents." .. attribute }) end
    return event
  end
end

local function is_event(value)
  return type(value) == "table" and value.specversion ~= nil
end

-- A function that gives the event that values are; false: they are none, and need not be.
---@param conf table of cloudevents
---@return fun(values: table): table|boolean
function events.maker(conf)
  local wrap = wrapper(conf)
  return function(values)
    local event = values.event
    if event then return event end
    if values.request and is_event(values.body) then
      local err, attribute
      event, err, attribute = cloudevents.decode(values.text)
      if not event then refuse(err, attribute) end
      values.text, values.body = event.data or "", nil
    elseif wrap then
      event = wrap(values)
    elseif conf.required then
      refuse("there is neither ce-specversion nor a type of CloudEvents")
    end
    values.event = event or false
    return values.event
  end
end

return events
