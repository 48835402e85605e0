-- SPDX-License-Identifier: Apache-2.0
-- Grafana dashboards against a scrape: every metric and label that one names must be there.
local cjson = require "cjson"
local process = require "spec.support.process"

local dashboard = {}

-- What its panels and variables ask for.
---@param path string
---@return { title: string, text: string }[]
function dashboard.expressions(path)
  local known, list = cjson.decode(process.read_file(path)), {}
  for _, panel in ipairs(known.panels) do
    for _, target in ipairs(panel.targets or {}) do list[#list + 1] = { title = panel.title, text = target.expr } end
  end
  for _, variable in ipairs(known.templating.list) do
    if type(variable.query) == "table" then list[#list + 1] = { title = variable.name, text = variable.query.query } end
  end
  return list
end

-- One line of the scrape that has this metric.
local function sample_of(scrape, metric)
  local text = "\n" .. scrape
  return text:match("\n" .. metric .. "({[^\n]*)") or text:match("\n" .. metric .. "( [^\n]*)")
end

---@param scrape string
---@param text string an expression
function dashboard.check(scrape, text)
  local count = 0
  for metric, selector in text:gmatch("(sluice_[%w_]+)({?[^}]*)") do
    local sample = sample_of(scrape, metric)
    assert(sample, metric .. " is not in the scrape")
    count = count + 1
    if selector:sub(1, 1) == "{" then
      for label in selector:gmatch('([%a_]+)[=!]') do assert(sample:find(label .. '="', 1, true), label) end
    end
    for labels in text:gmatch("by %(([%w_, ]+)%)") do
      for label in labels:gmatch("[%w_]+") do
        assert(sample:find(label .. '="', 1, true), metric .. " has no label " .. label)
      end
    end
  end
  assert(count > 0, "no metric")
end

return dashboard
