-- SPDX-License-Identifier: Apache-2.0
-- Edits a request before it goes to the service: path, method, header fields, body, query, in this order.
local body = require "request-transformer.body"
local edits = require "request-transformer.edits"
local headers = require "request-transformer.headers"
local members = require "request-transformer.members"
local query = require "sluice.query"
local template = require "request-transformer.template"

local transformer = { version = "1.0.0", priority = 801 }

local compiled = setmetatable({}, { __mode = "k" }) -- by configuration

local function compile(conf)
  local uses = {} -- what the templates look at
  local uri = conf.replace.uri
  return {
    uses = uses,
    uri = uri and uri ~= "" and template.value(uri, uses) or nil,
    method = conf.http_method,
    headers = edits.compile(conf, "headers", uses),
    body = edits.compile(conf, "body", uses),
    query = edits.compile(conf, "querystring", uses),
  }
end

function transformer.configure(confs)
  for _, conf in ipairs(confs or {}) do compiled[conf] = compiled[conf] or compile(conf) end
end

local BODILESS = { GET = true, HEAD = true, TRACE = true }

-- A form that such a method would lose goes into the query.
local function set_method(request, method, exchange)
  request:set_method(method)
  if not BODILESS[method] then return end
  local form = body.form(exchange)
  if not form then return end
  local args = query.decode(request:get_raw_query(), 0)
  for name, value in pairs(form) do members.append(args, name, value) end
  request:set_query(args)
end

local function edit_query(request, list, roots)
  local args = query.decode(request:get_raw_query(), 0)
  members.edit(list, args, roots)
  request:set_query(args)
end

function transformer.access(conf, exchange)
  local plan, request = compiled[conf], exchange.service.request
  -- Templates see the request as it came here, whatever is changed below.
  local roots = template.roots(exchange, plan.uses)
  if plan.uri then request:set_path(template.text(plan.uri, roots)) end
  if plan.method then set_method(request, plan.method, exchange) end
  if plan.headers then headers.edit(plan.headers, exchange, roots) end
  if plan.body then body.edit(plan.body, exchange, roots) end
  if plan.query then edit_query(request, plan.query, roots) end
end

return transformer
