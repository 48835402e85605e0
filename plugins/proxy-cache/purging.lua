-- SPDX-License-Identifier: Apache-2.0
-- PURGE requests: what is stored of a URL, of all that begin so, under a key or under tags is removed.
local cache = require "sluice.cache"
local ip = require "sluice.ip"

local purging = {}

-- Who may, made once; nil: nobody.
function purging.of(conf)
  local list = conf.purge_ips
  return list and list[1] and ip.matcher(list) or nil
end

local function by_tags(text)
  local total = 0
  for tag in text:gmatch("[^%s,]+") do total = total + (cache.purge_tag(tag) or 0) end
  return total
end

-- What a request names: tags, a key, or its own URL, where a `*` at the end stands for all that begin so.
local function purge(plan, exchange)
  local request = exchange.request
  local tags = request:get_header("Surrogate-Key") or request:get_header("Cache-Tag")
  if tags then return by_tags(tags) end
  local key = request:get_header("X-Cache-Key")
  if key then return cache.purge_key(key) end
  local url = cache.url(exchange, plan.rules)
  if not url then return nil, "the URL is too long" end
  local beginning = url:match("^(.*)%*$")
  return cache.purge_url(beginning or url, beginning ~= nil)
end

function purging.answer(plan, exchange)
  if not plan.purge:matches(exchange.client:get_forwarded_ip()) then
    return exchange.response:error(403, "Not allowed to purge")
  end
  local count, err = purge(plan, exchange)
  if not count then return exchange.response:error(400, err) end
  exchange.response:exit(200, { purged = count })
end

return purging
