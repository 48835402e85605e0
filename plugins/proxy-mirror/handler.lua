-- SPDX-License-Identifier: Apache-2.0
-- Sends copies of requests to another server and forgets its answers. The client and the service notice nothing of it:
-- a copy goes when its request is whole, in a coroutine of its own, and is dropped where there is no room for it.
local copies = require "proxy-mirror.copies"
local sluice = require "sluice"

local mirror = { version = "1.0.0", priority = 1 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration

function mirror.configure(confs)
  for _, conf in ipairs(confs or {}) do states[conf] = states[conf] or copies.state(conf) end
end

-- How much a body may take: what the client says of it, or as much as may be.
local function announced(conf, exchange)
  local request = exchange.request
  local length = tonumber((request:get_header("content-length")))
  if length then return length end
  return request:get_header("transfer-encoding") and conf.max_body or (request:get_http_version() >= 2
    and request:get_method() ~= "GET" and request:get_method() ~= "HEAD") and conf.max_body or 0
end

-- A conversation has no copy, and what is HTTP/2's alone none over HTTP/1.1.
local function can_be_copied(request)
  if request:get_header("upgrade") then return false end
  local content_type = request:get_header("content-type")
  return not (content_type and content_type:find("^application/grpc"))
end

function mirror.access(conf, exchange)
  if conf.sample_ratio < 1 and sluice.random() >= conf.sample_ratio then return end
  if not can_be_copied(exchange.request) then return end
  local state, bytes = states[conf], announced(conf, exchange)
  if bytes > conf.max_body then return state:count("too_large") end
  if not state:take(bytes) then return state:count("dropped") end
  local copy = copies.of(conf, state, exchange, bytes)
  if bytes == 0 then return copy:send("") end
  exchange.request:keep_body(conf.max_body)
  exchange.ctx.mirror = copy
end

-- Sends the copy when the whole request has come; `last`: it will not come any more.
local function send_when_whole(exchange, last)
  local ctx = rawget(exchange, "ctx")
  local copy = ctx and ctx.mirror
  if not copy then return end
  local body, err = exchange.request:get_kept_body()
  if body then
    copy:send(body)
  elseif err == "too large" then
    copy:drop("too_large")
  elseif last then
    copy:drop("incomplete")
  else
    return
  end
  ctx.mirror = nil
end

function mirror.header_filter(_, exchange)
  send_when_whole(exchange, false)
end

function mirror.log(_, exchange)
  send_when_whole(exchange, true)
end

return mirror
