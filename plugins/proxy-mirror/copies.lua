-- SPDX-License-Identifier: Apache-2.0
-- Copies of requests, and how many of them there may be at once.
local http = require "sluice.http"
local metrics = require "sluice.metrics"
local timer = require "sluice.timer"

local copies = {}

local MOST_ANSWER = 1048576 -- bytes of an answer that are read, to use the connection again

-- Between the client and the gateway, or made anew.
local NOT_COPIED = { connection = true, ["keep-alive"] = true, ["proxy-connection"] = true, te = true, trailer = true,
  ["transfer-encoding"] = true, upgrade = true, ["content-length"] = true, expect = true, host = true }

local outcomes

local State = {}
State.__index = State

---@param conf table
function copies.state(conf)
  local scheme_and_host, path = conf.host:match("^(%a+://[^/]+)(.*)$")
  return setmetatable({ conf = conf, base = scheme_and_host, base_path = path:gsub("/+$", ""), running = 0, bytes = 0 },
    State)
end

---@param outcome "sent"|"failed"|"dropped"|"too_large"|"incomplete"
function State:count(outcome)
  outcomes = outcomes or metrics.counter("sluice_mirror_copies_total", "Copies of requests, by what became of them",
    { "host", "outcome" })
  outcomes:increment(self.base, outcome)
end

-- Room for one more; false: there is none.
function State:take(bytes)
  local conf = self.conf
  if self.running >= conf.max_in_flight or self.bytes + bytes > conf.max_memory then return false end
  self.running, self.bytes = self.running + 1, self.bytes + bytes
  return true
end

function State:give_back(bytes)
  self.running, self.bytes = self.running - 1, self.bytes - bytes
end

local Copy = {}
Copy.__index = Copy

local function path_of(conf, state, exchange)
  local path = exchange.service.request:get_path()
  if conf.path then path = conf.path_concat_mode == "prefix" and conf.path:gsub("/+$", "") .. path or conf.path end
  local query = exchange.service.request:get_raw_query()
  return state.base .. state.base_path .. path .. (query ~= "" and "?" .. query or "")
end

local function headers_of(conf, exchange)
  local headers = {}
  for name, value in pairs((exchange.request:get_headers(1000))) do
    if not NOT_COPIED[name] then headers[name] = value end
  end
  local before = headers["x-forwarded-for"]
  if type(before) == "table" then before = table.concat(before, ", ") end
  headers["x-forwarded-for"] = (before and before .. ", " or "") .. exchange.client:get_ip()
  if conf.preserve_host then headers.host = exchange.request:get_header("host") end
  if conf.mark ~= "" then headers[conf.mark:lower()] = exchange.id end
  return headers
end

-- A copy of the request as it goes to the service, but for its body. `bytes`: what has been taken for that.
function copies.of(conf, state, exchange, bytes)
  return setmetatable({ state = state, bytes = bytes, is_over = false, options = {
    url = path_of(conf, state, exchange), method = exchange.request:get_method(), headers = headers_of(conf, exchange),
    timeout = conf.timeout / 1000, max_body = MOST_ANSWER, tls = { verify = conf.tls_verify },
    pool_size = conf.max_in_flight,
  } }, Copy)
end

-- Gives back its room; a copy whose exchange ends without a word is over, too.
function Copy:drop(outcome)
  if self.is_over then return end
  self.is_over = true
  self.state:give_back(self.bytes)
  self.state:count(outcome)
end

local function deliver(copy)
  local response = http.request(copy.options)
  copy:drop(response and "sent" or "failed")
end

---@param body string
function Copy:send(body)
  if body ~= "" then self.options.body = body end
  if not timer.at(0, deliver, self) then self:drop("dropped") end
end

return copies
