-- SPDX-License-Identifier: Apache-2.0
-- Makes some requests fail on purpose: late, refused, cut off, or with a body that is not what the service sent. To see
-- what clients make of it.
local damage = require "fault-injection.damage"
local expression = require "sluice.expression"
local sluice = require "sluice"

local faults = { version = "1.0.0", priority = 905 }

local NAMES = { "delay", "abort", "reset", "truncate", "corrupt" }

local conditions = setmetatable({}, { __mode = "k" }) -- by the record of a fault: its `match`, compiled

function faults.configure(confs)
  for _, conf in ipairs(confs or {}) do
    for _, name in ipairs(NAMES) do
      local fault = conf[name]
      if fault and fault.match then conditions[fault] = conditions[fault] or assert(expression.compile(fault.match)) end
    end
  end
end

local function spoils_body(conf)
  return conf.truncate ~= nil or conf.corrupt ~= nil or (conf.reset ~= nil and conf.reset.after_bytes ~= nil)
end

function faults.needs(conf)
  local spoils = spoils_body(conf)
  return {
    access = conf.delay ~= nil or conf.abort ~= nil or (conf.reset ~= nil and conf.reset.after_bytes == nil),
    header_filter = spoils or conf.response_header ~= nil, body_filter = spoils,
  }
end

-- Whether this request is one of those that a fault is for.
local function strikes(fault, exchange)
  if not fault then return false end
  local condition = conditions[fault]
  if condition and not condition(exchange) then return false end
  return fault.percentage >= 100 or sluice.random() * 100 < fault.percentage
end

local function note(exchange, name)
  local ctx = exchange.ctx
  ctx.faults = ctx.faults and ctx.faults .. ", " .. name or name
  exchange:set_serialize_value("faults", ctx.faults)
end

function faults.access(conf, exchange)
  local delay, abort, reset = conf.delay, conf.abort, conf.reset
  if strikes(delay, exchange) then
    note(exchange, "delay")
    sluice.sleep(delay.duration + delay.jitter * sluice.random())
  end
  if reset and not reset.after_bytes and strikes(reset, exchange) then
    note(exchange, "reset")
    exchange.response:break_off()
  end
  if strikes(abort, exchange) then
    note(exchange, "abort")
    exchange.response:exit(abort.http_status, abort.body, abort.headers)
  end
end

-- What happens to the body is decided once, before it comes: an expression may look at the response's head.
function faults.header_filter(conf, exchange)
  local ends, reset
  if conf.truncate and strikes(conf.truncate, exchange) then
    ends = conf.truncate.after_bytes
    note(exchange, "truncate")
  end
  if conf.reset and conf.reset.after_bytes and strikes(conf.reset, exchange) then
    ends, reset = math.min(ends or math.huge, conf.reset.after_bytes), true
    note(exchange, "reset")
  end
  local every
  if strikes(conf.corrupt, exchange) then
    every = conf.corrupt.every_bytes
    note(exchange, "corrupt")
  end
  if ends or every then exchange.ctx.damage = damage.new(ends, reset, every, sluice.random) end
  if conf.response_header and exchange.ctx.faults then
    exchange.response:set_header(conf.response_header, exchange.ctx.faults)
  end
end

function faults.body_filter(_, exchange, chunk, last)
  local wrought = exchange.ctx.damage
  if not wrought then return chunk end
  local out = wrought:of(chunk, last)
  if not out then exchange.response:break_off() end
  return out
end

return faults
