-- SPDX-License-Identifier: Apache-2.0
-- What the gateway tells Prometheus of itself, made when it is asked: connections, requests, memory, targets. Names and
-- labels are those of Kong's plugin with `sluice_` for `kong_`, so that its dashboards need no other change.

local address = require "sluice.config.address"
local circuit = require "sluice.circuit"
local counters = require "sluice.counters"
local health = require "sluice.balancer.health"
local node = require "sluice.node"
local store = require "sluice.store"
local timer = require "sluice.timer"
local vitals = require "sluice.vitals"

local format, gsub = string.format, string.gsub

jit.off(true, true) -- as in exposition.lua

local node_metrics = {}

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function quoted(value)
  return '"' .. gsub(tostring(value), '[\\"\n]', ESCAPES) .. '"'
end

local function head(out, name, help, kind)
  out:put("# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind or "gauge", "\n")
end

-- `labels` in the format's own form; "" for none.
local function line(out, name, value, labels)
  out:put(name, labels == "" and " " or "{")
  if labels ~= "" then out:put(labels, "} ") end
  out:put(format("%.15g", value), "\n")
end

local function put_node(out, id)
  head(out, "sluice_node_info", "Node metadata information")
  line(out, "sluice_node_info", 1, id .. ",version=" .. quoted(node.get_version()))
  head(out, "sluice_datastore_reachable", "Datastore reachable, 0 is unreachable")
  line(out, "sluice_datastore_reachable", 1, "") -- the configuration is in memory
  head(out, "sluice_nginx_timers", "Number of timers")
  line(out, "sluice_nginx_timers", timer.count(), 'state="pending"')
end

local function put_states(out, name, id, subsystem, all, open, busy)
  local states = { { "accepted", all }, { "active", open }, { "handled", all }, { "reading", 0 }, { "total", all },
    { "waiting", math.max(open - busy, 0) }, { "writing", busy } }
  local labels = id .. ',subsystem="' .. subsystem .. '",state="'
  for _, state in ipairs(states) do line(out, name, state[2], labels .. state[1] .. '"') end
end

-- Streams are connections that carry one thing each.
local function put_connections(out, name, id, totals)
  local streams, streaming = totals.streams, totals.streams_open
  head(out, name, "Number of connections by subsystem")
  put_states(out, name, id, "http", totals.connections - streams, totals.connections_open - streaming,
    totals.requests_open)
  if streams > 0 then put_states(out, name, id, "stream", streams, streaming, streaming) end
end

local function put_streams(out, id, totals)
  if totals.streams == 0 then return end
  local name = "sluice_stream_bytes_total"
  head(out, name, "Bytes of TCP and TLS streams, as clients sent (ingress) and got (egress) them", "counter")
  line(out, name, totals.stream_bytes_in, id .. ',direction="ingress"')
  line(out, name, totals.stream_bytes_out, id .. ',direction="egress"')
end

local function put_requests(out, name, id, totals)
  head(out, name, "Total number of requests")
  line(out, name, totals.requests, id .. ',subsystem="http"')
end

local function put_memory(out, id, pause)
  local name = "sluice_memory_workers_lua_vms_bytes"
  head(out, name, "Allocated bytes in worker Lua VM")
  for _, worker in ipairs(vitals.workers(pause)) do
    line(out, name, worker.lua_bytes or 0, ('%s,pid="%d",kong_subsystem="http"'):format(id, worker.pid or 0))
  end
end

local SLOT_BYTES = 64

-- Memory that workers share, under the name that Kong's metrics have for it.
local function put_shared(out, id, counted)
  local stored = store.usage()
  local shared = { { "counters", counted.used * SLOT_BYTES + counted.text_used,
    counted.slots * SLOT_BYTES + counted.text_bytes } }
  if stored then shared[2] = { "store", stored.bytes_used, stored.bytes_limit } end
  for i, what in ipairs { { "bytes", "Allocated" }, { "total_bytes", "Total capacity in" } } do
    local name = "sluice_memory_lua_shared_dict_" .. what[1]
    head(out, name, what[2] .. " bytes of memory shared by workers")
    for _, one in ipairs(shared) do
      line(out, name, one[i + 1], ('%s,shared_dict="%s",kong_subsystem="http"'):format(id, one[1]))
    end
  end
end

local function put_refused(out, id, counted)
  head(out, "sluice_counters_refused_total", "Counts that found no room in the table of shared counters", "counter")
  line(out, "sluice_counters_refused_total", counted.refused, id)
end

-- ---- Targets ----

local STATES = { "healthchecks_off", "healthy", "unhealthy", "dns_error" }

-- Whether an instance of the plugin asks for the health of targets, which is many lines.
local function is_wanted(generation)
  for _, plugin in ipairs(generation and generation.entities.plugins or {}) do
    if plugin.name == "prometheus" and plugin.enabled ~= false and plugin.config.upstream_health_metrics then
      return true
    end
  end
  return false
end

local function put_target(out, name, target, where, health_of_it)
  local state = health_of_it == "unchecked" and "healthchecks_off" or health_of_it
  local labels = "upstream=" .. quoted(target.upstream) .. ",target=" .. quoted(target.target) .. ",address="
    .. quoted(where) .. ',state="'
  for _, one in ipairs(STATES) do line(out, name, one == state and 1 or 0, labels .. one .. '",subsystem="http"') end
end

local function put_targets(out, pause)
  local generation = require "sluice.generation"
  if not is_wanted(generation.current()) then return end
  local name = "sluice_upstream_target_health"
  head(out, name, "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, value "
    .. "is 1 when state is populated.")
  for _, target in ipairs(health.targets(generation.current(), nil, pause)) do
    local host, port = address.split(target.target)
    local known = address.is_ip(host) and address.join(host, port or 8000) or ""
    if #target.addresses == 0 then put_target(out, name, target, known, target.health) end
    for _, one in ipairs(target.addresses) do
      local checked = target.health ~= "unchecked" or one.health ~= "healthy"
      put_target(out, name, target, one.address, checked and one.health or "unchecked")
    end
    pause()
  end
end

-- ---- Circuits ----

local function put_circuits(out, pause)
  local generation = require("sluice.generation").current()
  local list = generation and circuit.list(generation, pause) or {}
  local name = "sluice_circuit_breaker_state"
  if list[1] then head(out, name, "State of a circuit: 0 closed, 1 half-open, 2 open") end
  for _, one in ipairs(list) do
    line(out, name, one.number, "kind=" .. quoted(one.kind) .. ",name=" .. quoted(one.name))
    pause()
  end
end

-- Text in Prometheus' format, into a string.buffer.
---@param out table what stands in it may be taken out by `pause`
---@param pause fun() called now and then
function node_metrics.put(out, pause)
  local id, totals, counted = "node_id=" .. quoted(node.get_id()), vitals.totals(pause), counters.usage(pause)
  pause()
  put_node(out, id)
  pause()
  put_connections(out, "sluice_connections_total", id, totals)
  pause()
  put_connections(out, "sluice_nginx_connections_total", id, totals)
  pause()
  put_requests(out, "sluice_requests_total", id, totals)
  put_requests(out, "sluice_nginx_requests_total", id, totals)
  put_streams(out, id, totals)
  pause()
  put_memory(out, id, pause)
  pause()
  put_shared(out, id, counted)
  pause()
  put_refused(out, id, counted)
  put_targets(out, pause)
  put_circuits(out, pause)
  pause()
end

return node_metrics
