-- SPDX-License-Identifier: Apache-2.0
-- What producers are told while something fails, and what is so:
--   luajit spec/bench/chaos.lua [SECONDS]    how long things are away, 30 unless told
-- For each case: records that were acknowledged, refused (said not to be produced) and left open (504, or no answer at
-- all); of the acknowledged those that are lost; answers that were not true; records that came twice, or behind a later
-- one of their key.
dofile("lua/sluice/iterate.lua")
package.path = "./?.lua;" .. package.path

local chaos = require "spec.kafka.chaos"

local away = tonumber(arg[1]) or 30
local LOAD_SECONDS = 5

local COLUMNS = { "acknowledged", "refused", "unknown", "lost", "untrue", "twice", "out_of_order" }

local function codes_of(report)
  local list = {}
  for code, count in pairs(report.codes) do list[#list + 1] = code .. ": " .. count end
  table.sort(list)
  return table.concat(list, ", ")
end

local world = chaos.start { clients = 8, timeout = 10000, message_timeout = 30000 }
io.write(("%-42s"):format("case"))
for _, name in ipairs(COLUMNS) do io.write((" %12s"):format(name)) end
io.write("\n")
local good = true
for _, it in ipairs(chaos.disturbances) do
  local run = world:load(LOAD_SECONDS, function(inside) it[2](inside, away) end)
  local report = world:judge({ run })[1]
  io.write(("%-42s"):format(it[1]))
  for _, name in ipairs(COLUMNS) do io.write((" %12d"):format(report[name])) end
  io.write("  ", codes_of(report), "\n")
  io.flush()
  good = good and report.lost + report.untrue + report.twice + report.out_of_order == 0
end
world:stop()
os.exit(good and 0 or 1)
