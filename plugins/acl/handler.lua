-- SPDX-License-Identifier: Apache-2.0
-- Which groups of consumers may pass. Groups are the `acls` of a consumer, its consumer groups when told so, or those
-- that an authentication plugin found out elsewhere (a directory, a token) and left in exchange.ctx.
local log = require "sluice.log"

local acl = { version = "1.0.0", priority = 950 }

local FORBIDDEN = "You cannot consume this service"
local OF_CONSUMER, OF_ELSEWHERE = "X-Consumer-Groups", "X-Authenticated-Groups"
local NONE = {}

local function by_lists()
  return setmetatable({}, { __mode = "k" })
end

local rules = by_lists() -- by configuration: { allows, groups = set, known = verdicts by list, by list }

function acl.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local denies = conf.deny ~= nil and conf.deny[1] ~= nil -- the other list may be there, and empty
    local rule = { allows = not denies, groups = {}, known = by_lists() }
    for _, group in ipairs(denies and conf.deny or conf.allow) do rule.groups[group] = true end
    rules[conf] = rule
  end
end

-- What the service is told of these groups; false when they may not pass.
local function judge(rule, groups)
  local listed = false
  for i = 1, #groups do listed = listed or rule.groups[groups[i]] == true end
  return listed == rule.allows and table.concat(groups, ", ")
end

local function names_of(acls, consumer_groups)
  local names, seen = {}, {}
  local function add(name)
    if seen[name] then return end
    seen[name] = true
    names[#names + 1] = name
  end
  for _, entry in ipairs(acls) do add(entry.group) end
  for _, group in ipairs(consumer_groups) do add(group.name) end
  return names
end

-- The lists stay the same ones until the configuration changes them, so they are judged once.
local function judge_consumer(rule, acls, consumer_groups)
  local known = rule.known[acls]
  if not known then
    known = by_lists()
    rule.known[acls] = known
  end
  local verdict = known[consumer_groups]
  if verdict == nil then
    verdict = judge(rule, names_of(acls, consumer_groups))
    known[consumer_groups] = verdict
  end
  return verdict
end

-- Groups from elsewhere, if they count.
local function authenticated_groups(conf, exchange, consumer)
  local is_known = consumer and exchange.client:get_credential()
  if is_known and not conf.always_use_authenticated_groups then return nil end
  local groups = exchange.ctx.authenticated_groups
  if type(groups) == "table" then return groups end
  if groups ~= nil then log.err("authenticated_groups is no list") end
end

local function refuse(exchange)
  if exchange.client:get_credential() then exchange.response:error(403, FORBIDDEN) end
  exchange.response:error(401)
end

local function tell(exchange, conf, name, groups)
  local request = exchange.service.request
  request:clear_alike(OF_CONSUMER)
  request:clear_alike(OF_ELSEWHERE)
  if groups ~= "" and not conf.hide_groups_header then request:set_header(name, groups) end
end

local function check(conf, exchange, name, verdict)
  if not verdict then exchange.response:error(403, FORBIDDEN) end
  tell(exchange, conf, name, verdict)
end

function acl.access(conf, exchange)
  local client = exchange.client
  local consumer, rule = client:get_consumer(), rules[conf]
  local groups = authenticated_groups(conf, exchange, consumer)
  if groups then return check(conf, exchange, OF_ELSEWHERE, judge(rule, groups)) end
  if not consumer then return refuse(exchange) end
  local acls = client:load_credentials("acls", "consumer", consumer.id)
  local consumer_groups = conf.include_consumer_groups and client:get_consumer_groups() or NONE
  if rule.allows and not acls[1] and not consumer_groups[1] then return refuse(exchange) end
  check(conf, exchange, OF_CONSUMER, judge_consumer(rule, acls, consumer_groups))
end

return acl
