-- SPDX-License-Identifier: Apache-2.0
-- `sluice status`: one screen. What the master knows (processes, reloads) and what one worker does (plugins, targets,
-- Kafka); --json prints both as they come.

local columns = require "sluice.cli.columns"
local gateway = require "sluice.cli.gateway"
local json = require "sluice.json"
local options = require "sluice.cli.options"

local status = {}

local PATIENCE_S = 10
local MOST_TOPICS = 10 -- of a cluster, on the screen

local function present(value)
  if value == nil or value == json.null then return nil end
  return value
end

local function list(value)
  return type(value) == "table" and value or {}
end

local function whole(number)
  return present(number) and ("%.0f"):format(number) or ""
end

local function ago(now, at)
  return columns.duration(now - at) .. " ago"
end

local function put_head(out, state, now)
  out[#out + 1] = ("sluice %s  %s for %s  pid %d\n"):format(state.version, state.state, columns.duration(state.uptime),
    state.pid)
  out[#out + 1] = ("configuration  %s\nstate_dir      %s\n"):format(table.concat(list(state.files), ", "),
    present(state.state_dir) or "")
  for _, listener in ipairs(list(state.listeners)) do
    out[#out + 1] = ("%-14s %s %s\n"):format(listener["for"], listener.address, listener.flags):gsub(" +\n", "\n")
  end
  local last = present(state.last_reload)
  local how = last and last.ok and last.changed and (" (%s, %d ms)"):format(last.reason, last.took_ms) or ""
  out[#out + 1] = ("generation     %d, live since %s%s\n"):format(state.generation,
    columns.duration(now - state.loaded_at), how)
end

local function put_failure(out, state, now)
  local failure = present(state.last_failure)
  if not failure then return end
  local last = present(state.last_reload)
  local current = last and not last.ok
  out[#out + 1] = ("\n%s %s (%s)\n"):format(current and "THE LAST RELOAD FAILED" or "last failure, mended since,",
    ago(now, failure.at), failure.reason)
  for _, problem in ipairs(list(failure.errors)) do
    out[#out + 1] = ("  %s\n"):format((gateway.sentence(problem):gsub("\n", "\n  ")))
  end
end

local function put_workers(out, state)
  local rows = {}
  for _, worker in ipairs(list(state.workers)) do
    -- Each of them is an exchange, and none a request.
    local streams, streaming = worker.streams or 0, worker.streams_open or 0
    rows[#rows + 1] = {
      worker.id, worker.pid, worker.state, worker.generation, columns.duration(worker.uptime),
      worker.exchanges - streams, worker.exchanges_open - streaming, worker.connections_open, streaming,
      worker.restarts, present(worker.last_end) or "",
    }
  end
  out[#out + 1] = "\n" .. columns.format(
    { "WORKER", "PID", "STATE", "GENERATION", "UP", "REQUESTS", "OPEN", "CONNECTIONS", "STREAMS", "RESTARTS",
      "LAST END" }, rows, { [2] = true, [4] = true, [6] = true, [7] = true, [8] = true, [9] = true, [10] = true })
end

local function put_plugins(out, worker, now)
  local rows = {}
  for _, plugin in ipairs(list(worker.plugins)) do
    rows[#rows + 1] = {
      plugin.name, plugin.version, plugin.priority, plugin.hash,
      present(plugin.loaded_at) and ago(now, plugin.loaded_at) or "", plugin.trusted and "trusted" or "", plugin.dir,
    }
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "PLUGIN", "VERSION", "PRIORITY", "HASH", "LOADED", "", "FROM" }, rows,
    { [3] = true })
end

-- Why, since when, and what it has to do.
local function details(one)
  local words = {}
  if #list(one.reasons) > 0 then
    words[1] = ("by %s, for %s"):format(table.concat(one.reasons, ", "), columns.duration(one.since_s))
  end
  if one.in_flight > 0 then words[#words + 1] = ("%d in flight"):format(one.in_flight) end
  if present(one.latency_ms) then words[#words + 1] = ("%.1f ms"):format(one.latency_ms) end
  return table.concat(words, ", ")
end

local function put_targets(out, worker)
  local rows = {}
  for _, target in ipairs(list(worker.targets)) do
    local addresses = list(target.addresses)
    rows[#rows + 1] = { target.upstream, target.target, target.weight, target.health, #addresses == 1
      and details(addresses[1]) or "" }
    for _, one in ipairs(#addresses > 1 and addresses or {}) do
      rows[#rows + 1] = { "", "  " .. one.address, "", one.health, details(one) }
    end
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "UPSTREAM", "TARGET", "WEIGHT", "HEALTH", "" }, rows, { [3] = true })
end

local function put_circuits(out, worker, now)
  local rows = {}
  for _, circuit in ipairs(list(worker.circuits)) do
    local when = circuit.moment > now and "for " .. columns.duration(circuit.moment - now)
      or circuit.moment > 0 and "since " .. columns.duration(now - circuit.moment) or ""
    rows[#rows + 1] = { circuit.name, circuit.kind, circuit.state, when }
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "CIRCUIT", "OF", "STATE", "" }, rows)
end

local function put_functions(out, worker)
  local rows = {}
  for _, one in ipairs(list(worker.functions)) do
    rows[#rows + 1] = { one.name, one.calls, one.errors, one.timeouts,
      one.calls > 0 and ("%.1f ms"):format(one.seconds / one.calls * 1000) or "" }
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "FUNCTION", "CALLS", "ERRORS", "TIMEOUTS", "ON AVERAGE" }, rows,
    { [2] = true, [3] = true, [4] = true, [5] = true })
end

local function last_error(cluster, now)
  local err, at = present(cluster.last_error), present(cluster.last_error_at)
  if not err then return "" end
  return at and ("%s (%s)"):format(err, ago(now, at)) or err
end

-- Of all workers where that is known, else of the one that answers.
local function put_clusters(out, clusters, now)
  local rows = {}
  for i, cluster in ipairs(clusters) do
    local all = present(cluster.all) or cluster
    rows[i] = {
      cluster.name, cluster.embedded and "embedded" or present(cluster.brokers) or "", present(cluster.state) or "",
      whole(all.produced), whole(all.failed), whole(all.refused), whole(all.consumed), whole(all.queued),
      whole(all.readers), last_error(cluster, now),
    }
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "KAFKA", "BROKERS", "STATE", "PRODUCED", "FAILED", "REFUSED", "CONSUMED",
    "QUEUED", "READERS", "LAST ERROR" }, rows,
    { [4] = true, [5] = true, [6] = true, [7] = true, [8] = true, [9] = true })
end

local function put_topics(out, clusters)
  local rows = {}
  for _, cluster in ipairs(clusters) do
    local all = present(cluster.all) or {}
    for i, topic in ipairs(list(all.topics)) do
      if i > MOST_TOPICS then break end
      rows[#rows + 1] = { topic.name, cluster.name, whole(topic.produced), columns.bytes(topic.produced_bytes),
        whole(topic.failed), whole(topic.consumed), columns.bytes(topic.consumed_bytes) }
    end
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "TOPIC", "CLUSTER", "PRODUCED", "BYTES", "FAILED", "CONSUMED", "BYTES" },
    rows, { [3] = true, [4] = true, [5] = true, [6] = true, [7] = true })
end

local function put_lags(out, clusters)
  local rows = {}
  for _, cluster in ipairs(clusters) do
    local all = present(cluster.all) or {}
    for i, lag in ipairs(list(all.lags)) do
      if i > MOST_TOPICS then break end
      if lag.group ~= "" or lag.records > 0 then
        rows[#rows + 1] = { lag.group ~= "" and lag.group or "(readers)", lag.topic, cluster.name, whole(lag.records) }
      end
    end
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "GROUP", "TOPIC", "CLUSTER", "BEHIND" }, rows, { [4] = true })
end

local function put_kafka(out, worker, now)
  local clusters = list(worker.kafka)
  put_clusters(out, clusters, now)
  put_topics(out, clusters)
  put_lags(out, clusters)
end

-- The screen for a decoded answer of the master.
---@param state table
---@return string
function status.screen(state)
  local out, now = {}, state.started_at + state.uptime
  put_head(out, state, now)
  put_failure(out, state, now)
  put_workers(out, state)
  local worker = present(state.worker)
  if worker then
    put_plugins(out, worker, now)
    put_targets(out, worker)
    put_circuits(out, worker, now)
    put_functions(out, worker)
    put_kafka(out, worker, now)
  else
    out[#out + 1] = "\nNo worker answered: plugins and targets are not known.\n"
  end
  return table.concat(out)
end

function status.run(args, host)
  local parsed = options.parse(args, { options.config, { "--json", key = "json" } })
  local state, why = gateway.ask(host, options.files(parsed), "status", PATIENCE_S)
  if not state then return gateway.complain(why) end
  io.write(parsed.json and json.encode(state) .. "\n" or status.screen(state))
  return 0
end

return status
