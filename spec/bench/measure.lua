-- SPDX-License-Identifier: Apache-2.0
-- Load, and what it cost: wrk and h2load on the other core, CPU time of a process as the kernel counts it.
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local measure = {}

-- Resident bytes that are a process's own: no file's, whose pages count as anybody's or nobody's as other processes
-- come and go, and nothing of what workers share.
function measure.private_bytes(pid)
  return tonumber(process.read_file("/proc/" .. pid .. "/smaps_rollup"):match("Anonymous:%s*(%d+) kB")) * 1024
end

function measure.resident_bytes(pid)
  return tonumber(process.read_file("/proc/" .. pid .. "/status"):match("VmRSS:%s*(%d+) kB")) * 1024
end

local function checked(command, seconds)
  local status, out, err = process.run(command, { seconds = seconds + 30 })
  if status ~= 0 then error(table.concat(command, " ") .. "\n" .. out .. err) end
  return out
end

-- Full load for so many seconds. load: url, connections, headers (list of lines), script (of wrk), seconds; over HTTP/2
-- streams (of each connection) and data (path of what is posted).
-- Gives requests, seconds of CPU of `pid` (cpu), requests per CPU-second (per_cpu), requests per second (rate).
function measure.throughput(pid, load)
  local result
  -- A connection that wrk could not open spoils a round, not the run; a wrong answer does.
  for _ = 1, 3 do
    result = measure.round(pid, load)
    if result then return result end
  end
  error("the load cannot connect to " .. load.url)
end

local function wrk_command(load)
  local command = { "wrk", "-t1", "-c" .. (load.connections or 64), "-d" .. load.seconds .. "s" }
  if load.script then
    command[#command + 1] = "-s"
    command[#command + 1] = load.script
  end
  return command
end

local function h2load_command(load)
  local command = { "h2load", "-t1", "-c" .. (load.connections or 4), "-m" .. load.streams, "-D" .. load.seconds }
  if load.data then command[#command + 1] = "--data=" .. load.data end
  return command
end

local function read_wrk(out)
  assert(not out:find("Non-2xx", 1, true), out)
  if out:find("Socket errors", 1, true) then
    io.stderr:write(out)
    return nil
  end
  return tonumber(out:match("(%d+) requests in")), tonumber(out:match("Requests/sec:%s*([%d.]+)"))
end

local function read_h2load(out)
  local done, failed, errored = out:match("(%d+) done, %d+ succeeded, (%d+) failed, (%d+) errored")
  assert(tonumber(failed) == 0 and tonumber(errored) == 0, out)
  assert(tonumber(out:match("status codes: (%d+) 2xx")) >= tonumber(done), out)
  return tonumber(done), tonumber(out:match("([%d.]+) req/s"))
end

-- Over HTTP/2 when load.streams says how many a connection has at once.
function measure.round(pid, load)
  local command = { "taskset", "-c", servers.OTHER_CORE }
  for _, word in ipairs((load.streams and h2load_command or wrk_command)(load)) do command[#command + 1] = word end
  for _, line in ipairs(load.headers or {}) do
    command[#command + 1] = "-H"
    command[#command + 1] = line
  end
  command[#command + 1] = load.url
  local before = posix.cpu_seconds(pid)
  local out = checked(command, load.seconds)
  local cpu = posix.cpu_seconds(pid) - before
  local requests, rate = (load.streams and read_h2load or read_wrk)(out)
  return requests and { requests = requests, cpu = cpu, per_cpu = requests / cpu, rate = rate }
end

-- p50, p99 and the greatest latency in milliseconds at a fixed rate. load: url, headers, rate, seconds, data (path of
-- what is posted).
function measure.latency(load)
  local clients = 20
  local log = os.tmpname()
  local command = { "taskset", "-c", servers.OTHER_CORE, "h2load", "--h1", "-t1", "-c" .. clients,
    "--duration=" .. load.seconds, "--rps=" .. load.rate / clients, "--log-file=" .. log }
  if load.data then command[#command + 1] = "--data=" .. load.data end
  for _, line in ipairs(load.headers or {}) do
    command[#command + 1] = "-H"
    command[#command + 1] = line
  end
  command[#command + 1] = load.url
  checked(command, load.seconds)
  local times = {}
  for line in io.lines(log) do
    local status, us = line:match("^%d+\t(%-?%d+)\t(%d+)")
    assert(status == "200", "a request failed: " .. line)
    times[#times + 1] = tonumber(us) / 1000
  end
  os.remove(log)
  table.sort(times)
  local function at(share) return times[math.max(1, math.ceil(#times * share))] end
  return { count = #times, p50 = at(0.5), p99 = at(0.99), greatest = at(1) }
end

function measure.median(values)
  local sorted = { unpack(values) }
  table.sort(sorted)
  local middle = math.floor((#sorted + 1) / 2)
  return #sorted % 2 == 1 and sorted[middle] or (sorted[middle] + sorted[middle + 1]) / 2
end

return measure
