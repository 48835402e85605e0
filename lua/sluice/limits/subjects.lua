-- SPDX-License-Identifier: Apache-2.0
-- Whose requests are counted together, by the names that `limit_by` has in Kong's plugins. Each takes (conf, exchange)
-- and gives the text by which one subject is told from others; nil: the request has none, and its client's address
-- stands for it (limits.subject_of).

local subjects = {}

function subjects.consumer(_, exchange)
  local who = exchange.client:get_consumer() or exchange.client:get_credential()
  return who and who.id
end

subjects["consumer-group"] = function(_, exchange)
  local group = exchange.client:get_consumer_group()
  return group and group.id
end

function subjects.credential(_, exchange)
  local credential = exchange.client:get_credential()
  return credential and credential.id
end

function subjects.service(_, exchange)
  local service = exchange.router:get_service()
  return service and service.id
end

function subjects.route(_, exchange)
  local route = exchange.router:get_route()
  return route and route.id
end

-- With a letter in front, for a client must not pass for another's address.
function subjects.header(conf, exchange)
  local value = exchange.request:get_header(conf.header_name)
  return value and "h" .. value
end

function subjects.path(conf, exchange)
  return exchange.request:get_path() == conf.path and conf.path or nil
end

function subjects.ip()
  return nil
end

return subjects
