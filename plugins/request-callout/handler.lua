-- SPDX-License-Identifier: Apache-2.0
-- Calls other HTTP servers before the request goes to its service, several at once as far as they do not need each
-- other, and puts what they said into the request.
local answers = require "request-callout.answers"
local calls = require "request-callout.calls"
local code = require "sluice.code"
local http = require "sluice.http"
local merge = require "request-callout.merge"
local sluice = require "sluice"
local template = require "sluice.template"
local together = require "sluice.together"

local callout = { version = "1.0.0", priority = 812 }

local NAMES = { "callouts", "headers", "kong", "query_params", "uri_captures", "shared" }
local kong = code.kong()

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- Once a configuration -------------------------------------------------------------------------------------------

local function compiled_code(compiler, text, name)
  if not text then return nil end
  local fn, err = compiler(text, name)
  if not fn then error(err, 0) end
  return fn
end

local function compiled(value)
  if value == nil then return nil end
  return assert(template.deep(value, NAMES))
end

local function plan_of_call(given, compiler)
  local request, name = given.request, "request-callout." .. given.name
  return {
    name = given.name, given = given, depends_on = given.depends_on, url = compiled(request.url),
    query = compiled(request.query.custom), headers = compiled(request.headers.custom),
    body = compiled(request.body.custom), message = compiled(request.error.error_response_msg),
    before = compiled_code(compiler, request.by_lua, name .. ".request"),
    after = compiled_code(compiler, given.response.by_lua, name .. ".response"),
  }
end

local function plan_of(conf)
  local compiler, plan = code.compiler(), { calls = {} }
  for i, given in ipairs(conf.callouts) do plan.calls[i] = plan_of_call(given, compiler) end
  local upstream = conf.upstream
  plan.upstream = { headers = compiled(upstream.headers.custom), query = compiled(upstream.query.custom),
    body = compiled(upstream.body.custom), last = compiled_code(compiler, upstream.by_lua, "request-callout.upstream") }
  return plan
end

function callout.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plans[conf] or plan_of(conf) end
end

-- ---- Once a request -------------------------------------------------------------------------------------------------

-- What templates see. Headers and arguments are read when somebody looks.
local function values_of(exchange)
  local ctx = exchange.ctx
  ctx.callouts = {}
  local values = { callouts = ctx.callouts, kong = kong, shared = ctx }
  return setmetatable(values, { __index = function(self, name)
    local value
    if name == "headers" then value = exchange.request:get_headers(1000)
    elseif name == "query_params" then value = exchange.request:get_query(1000)
    elseif name == "uri_captures" then value = merge.captures(exchange)
    end
    rawset(self, name, value)
    return value
  end })
end

local function is_ready(call, done)
  for _, name in ipairs(call.depends_on) do
    if not done[name] then return false end
  end
  return true
end

-- The request with its retries: runs beside others, so it touches nothing but its own context.
local function perform(options, policy, context)
  local retries = policy.on_error == "retry" and policy.retries or 0
  while true do
    local response, err = http.request(options)
    local reason = calls.fault_of(policy, response, err)
    if not reason then return response end
    if context.request.n_retries >= retries then return nil, reason end
    context.request.n_retries = context.request.n_retries + 1
    table.insert(context.request.retries, reason)
  end
end

local function fail(exchange, call, values)
  local policy = call.given.request.error
  exchange.response:exit(policy.error_response_code, { message = template.text(call.message(values)) })
end

-- Makes the request of a callout, and asks the cache for its answer. What is to be sent, or nil: it is done.
local function begin(self, call)
  local context = calls.context(self.exchange, call, self.values)
  self.values.callouts[call.name] = context
  if call.before then call.before(self.conf, self.exchange) end
  context.caching.key = answers.key(self.conf, self.exchange, call, context)
  local known = answers.get(self.conf, context, self.deadline - sluice.time.monotonic())
  if known then
    answers.store(call, context, known)
    if call.after then call.after(self.conf, self.exchange) end
    return nil
  end
  return calls.options(call, context, self.deadline - sluice.time.monotonic())
end

local function finish(self, call, response, reason)
  local context = self.values.callouts[call.name]
  if not response then
    context.response = nil
    sluice.log.warn("callout failed", { callout = call.name, error = reason and reason.err or nil,
      status = reason and reason.http_code or nil })
    if call.given.request.error.on_error ~= "continue" then fail(self.exchange, call, self.values) end
    return
  end
  answers.store(call, context, response)
  if call.after then call.after(self.conf, self.exchange) end
  answers.put(self.conf, context, self.deadline - sluice.time.monotonic())
end

local function start_ready(self, waiting)
  local again = true
  while again do
    again = false
    for i = #waiting, 1, -1 do
      local call = waiting[i]
      if is_ready(call, self.done) then
        table.remove(waiting, i)
        local options = begin(self, call)
        if not options then
          self.done[call.name], again = true, true -- others may have waited for what the cache knew
        else
          local context = self.values.callouts[call.name]
          local ok, err = self.group:start(call, perform, options, call.given.request.error, context)
          if not ok then error(err) end
        end
      end
    end
  end
end

local function run_all(self, plan)
  local waiting = {}
  for i = #plan.calls, 1, -1 do waiting[#waiting + 1] = plan.calls[i] end
  start_ready(self, waiting)
  while self.group.running > 0 or self.group.done[1] do
    local call, response, reason = self.group:next(math.max(self.deadline - sluice.time.monotonic(), 0))
    if not call then
      sluice.log.warn("callouts failed", { error = "deadline" })
      return self.exchange.response:exit(504, { message = "service callout timeout" })
    end
    if type(reason) == "string" then error(reason) end
    finish(self, call, response, reason)
    self.done[call.name] = true
    start_ready(self, waiting)
  end
end

function callout.access(conf, exchange)
  local plan = plans[conf]
  local self = { conf = conf, exchange = exchange, values = values_of(exchange), done = {}, group = together.new(),
    deadline = sluice.time.monotonic() + conf.deadline / 1000 }
  run_all(self, plan)
  merge.upstream(conf.upstream, plan.upstream, exchange, self.values)
  if plan.upstream.last then plan.upstream.last(conf, exchange) end
end

return callout
