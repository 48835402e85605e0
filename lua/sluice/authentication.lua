-- SPDX-License-Identifier: Apache-2.0
-- What plugins that authenticate have in common, as Kong's do it.
--
-- Several of them may stand on one route. Those with `anonymous` are alternatives: the first that knows who it is
-- settles it, and a request that nobody knows goes on as that consumer. Those without have to be satisfied all.

local authentication = {}

-- Fields of a refusal.
---@param scheme string such as "Basic"
---@param realm string|nil
---@return table
function authentication.challenge(scheme, realm)
  if not realm then return { ["WWW-Authenticate"] = scheme } end
  return { ["WWW-Authenticate"] = ('%s realm="%s"'):format(scheme, (realm:gsub('[\\"]', "\\%0"))) }
end

-- Whether another plugin has settled it.
---@param conf { anonymous: string|nil }
---@param exchange sluice.exchange
function authentication.is_settled(conf, exchange)
  return conf.anonymous ~= nil and exchange.client:get_credential() ~= nil
end

-- It is known whose the credential is.
---@param exchange sluice.exchange
---@param credential table
---@param identifier string what the service is told of the credential
function authentication.accept(exchange, credential, identifier)
  local client = exchange.client
  client:authenticate(client:load_consumer(credential.consumer), credential)
  client:forward_identity(identifier)
end

local function go_on_as_anonymous(conf, exchange)
  local client = exchange.client
  local consumer = client:load_consumer(conf.anonymous, true)
  if not consumer then
    exchange.response:error(500, "anonymous consumer " .. conf.anonymous .. " is configured but doesn't exist")
  end
  client:authenticate(consumer, nil)
  client:forward_identity(nil)
end

-- It is not known who it is: answers 401, or goes on as the anonymous consumer.
---@param conf { anonymous: string|nil }
---@param exchange sluice.exchange
---@param message string
---@param headers table from `challenge`
function authentication.refuse(conf, exchange, message, headers)
  if conf.anonymous then return go_on_as_anonymous(conf, exchange) end
  exchange.response:error(401, message, headers)
end

-- The value of a field that a client sends once: "authorization" and its like.
---@param exchange sluice.exchange
---@param name string
---@return string|nil value
---@return boolean several whether there are several, of which none can be trusted
function authentication.field(exchange, name)
  local request = exchange.request
  local value = request:get_header(name)
  return value, value ~= nil and request:get_header(name, 2) ~= nil
end

return authentication
