-- SPDX-License-Identifier: Apache-2.0
-- Tables and durations on a terminal.

local columns = {}

-- `rows` of texts under `heads`, each column as wide as its widest text; `right` marks columns of numbers.
---@param heads string[]
---@param rows any[][]
---@param right? table<integer, boolean>
---@return string
function columns.format(heads, rows, right)
  local widths, lines = {}, {}
  for index, head in ipairs(heads) do widths[index] = #head end
  for _, row in ipairs(rows) do
    for index = 1, #heads do widths[index] = math.max(widths[index], #tostring(row[index])) end
  end
  local function line(row)
    local cells = {}
    for index = 1, #heads do
      local text = tostring(row[index])
      local space = (" "):rep(widths[index] - #text)
      cells[index] = right and right[index] and space .. text or text .. space
    end
    return (table.concat(cells, "  "):gsub(" +$", ""))
  end
  lines[1] = line(heads)
  for _, row in ipairs(rows) do lines[#lines + 1] = line(row) end
  return table.concat(lines, "\n") .. "\n"
end

local units = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } }

-- 93.2 -> "1 min 33 s"
---@param seconds number
---@return string
function columns.duration(seconds)
  seconds = math.max(0, math.floor(seconds))
  for index, unit in ipairs(units) do
    if seconds >= unit[1] then
      local text = ("%d %s"):format(math.floor(seconds / unit[1]), unit[2])
      local smaller = units[index + 1]
      local rest = smaller and math.floor(seconds % unit[1] / smaller[1]) or 0
      return rest > 0 and ("%s %d %s"):format(text, rest, smaller[2]) or text
    end
  end
  return "0 s"
end

local MULTIPLES = { "B", "KB", "MB", "GB", "TB" }

-- 1536 -> "1.5 KB"
---@param count number
---@return string
function columns.bytes(count)
  local unit = 1
  while count >= 1024 and MULTIPLES[unit + 1] do count, unit = count / 1024, unit + 1 end
  return (unit == 1 and "%.0f %s" or "%.1f %s"):format(count, MULTIPLES[unit])
end

return columns
