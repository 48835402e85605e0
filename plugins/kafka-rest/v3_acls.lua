-- SPDX-License-Identifier: Apache-2.0
-- v3: access control lists.
local json = require "sluice.json"
local resources = require "kafka-rest.resources"
local v3 = require "kafka-rest.v3"

local FIELDS = resources.ACL_FIELDS

local function set_of(names)
  local set = {}
  for name in names:gmatch("%S+") do set[name] = true end
  return set
end

local OPERATIONS = "ALL READ WRITE CREATE DELETE ALTER DESCRIBE CLUSTER_ACTION DESCRIBE_CONFIGS ALTER_CONFIGS "
  .. "IDEMPOTENT_WRITE"

-- What may stand in the fields that are no free texts; a filter may say ANY, and MATCH of a pattern.
local KNOWN = {
  resource_type = set_of "TOPIC GROUP CLUSTER", pattern_type = set_of "LITERAL PREFIXED",
  operation = set_of(OPERATIONS), permission = set_of "ALLOW DENY",
}
local IN_FILTER = { ANY = true, MATCH = true }

local function check(call, name, value, in_filter)
  local known = KNOWN[name]
  if not known or known[value] then return end
  if in_filter and IN_FILTER[value] and (value == "ANY" or name == "pattern_type") then return end
  call:refuse(400, 400, ("%s: %s is none of those that there are"):format(name, tostring(value)))
end

local function filter_of(call, required)
  local filter = {}
  for _, name in ipairs(FIELDS) do
    local value = call.exchange.request:get_query_arg(name)
    if value == true or value == "" then value = nil end
    if value then
      if KNOWN[name] then value = value:upper() end
      check(call, name, value, true)
      filter[name] = value
    elseif required and KNOWN[name] then
      call:refuse(400, 400, name .. " must be told, to delete no more than is meant")
    end
  end
  return filter
end

local function acl_of(call, value)
  if type(value) ~= "table" then call:refuse(400, 400, "an ACL must be an object") end
  local acl = {}
  for _, name in ipairs(FIELDS) do
    if type(value[name]) ~= "string" or value[name] == "" then call:refuse(400, 400, name .. " must be a text") end
    check(call, name, value[name], false)
    acl[name] = value[name]
  end
  return acl
end

local function data_of(call, acls)
  local data = {}
  for i, acl in ipairs(acls) do data[i] = resources.acl(call, acl) end
  return data
end

local function create(call, acls)
  for _, result in ipairs(call:must(call.admin:create_acls(acls))) do
    if result.error then call:refuse_kafka(result.error.text, result.error.code) end
  end
  call:answer(201, nil, { Location = resources.acl(call, acls[1]).metadata.self })
end

v3.add("GET", "/acls", "read", function(call)
  local acls = call:must(call.admin:acls(filter_of(call, false)))
  local raw = call.exchange.request:get_raw_query()
  local self = resources.url(call, "acls") .. (raw ~= "" and "?" .. raw or "")
  call:answer(200, resources.list("KafkaAclList", self, data_of(call, acls)))
end)

v3.add("POST", "/acls", "admin", function(call)
  create(call, { acl_of(call, (call:body())) })
end)

v3.add("POST", "/acls:batch", "admin", function(call)
  local body, acls = call:body(), {}
  if type(body.data) ~= "table" or #body.data == 0 then call:refuse(400, 400, "data must be a list of ACLs") end
  for i, value in ipairs(body.data) do acls[i] = acl_of(call, value) end
  create(call, acls)
end)

v3.add("DELETE", "/acls", "admin", function(call)
  local gone = call:must(call.admin:delete_acls { filter_of(call, true) })
  call:answer(200, { data = json.array(data_of(call, gone)) })
end)
