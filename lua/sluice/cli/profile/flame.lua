-- SPDX-License-Identifier: Apache-2.0
-- A flame graph: one rectangle a frame, as wide as its share of the time, upon the one that called it. A click on one
-- makes it the whole width, a click on the lowest one goes back.

local flame = {}

local WIDTH, ROW, HEAD, EDGE, LETTER = 1200, 17, 34, 10, 6.6
local LEAST = 0.1 -- of a pixel: narrower ones are left out

local HEADER = [[
<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d"
 font-family="monospace" font-size="11">
<rect width="100%%" height="100%%" fill="#f8f8f8"/>
<text x="%d" y="21" font-size="14">%s</text>
<g id="frames">
]]

local SCRIPT = [[
</g>
<script><![CDATA[
(function () {
  var edge = %d, width = %d, letter = %g, frames = document.getElementById('frames').children;
  function show(from, share) {
    for (var i = 0; i < frames.length; i++) {
      var one = frames[i], rect = one.children[1], text = one.children[2];
      var left = (one.dataset.x - from) / share, right = left + one.dataset.w / share;
      left = Math.max(left, 0); right = Math.min(right, 1);
      one.style.display = right > left ? '' : 'none';
      if (right <= left) continue;
      rect.setAttribute('x', edge + left * width);
      rect.setAttribute('width', (right - left) * width);
      text.setAttribute('x', edge + left * width + 3);
      var room = Math.floor(((right - left) * width - 6) / letter), name = one.dataset.name;
      text.textContent = room < 3 ? '' : name.length <= room ? name : name.slice(0, room - 2) + '..';
    }
  }
  for (var i = 0; i < frames.length; i++)
    frames[i].addEventListener('click', function () { show(+this.dataset.x, +this.dataset.w); });
})();
]].. "]]></script>\n</svg>\n"

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(text)
  return (text:gsub("[%z\1-\8\11\12\14-\31\127-\255]", "?"):gsub('[&<>"]', entities))
end

local function fits(name, width)
  local room = math.floor((width - 6) / LETTER)
  if room < 3 then return "" end
  return #name <= room and name or name:sub(1, room - 2) .. ".."
end

-- Plugins and Lua, C and what is neither are told apart; the same name has always the same shade.
local function color(name)
  local shade = 0
  for i = 1, #name do shade = (shade * 31 + name:byte(i)) % 997 end
  local hue = name:find("^plugin ") and 265 or name:find("^%[") and 0 or name:find("%(.+:%d+%)$") and 130 or 30
  return ("hsl(%d,%d%%,%d%%)"):format(hue, hue == 0 and 0 or 55 + shade % 20, 68 + shade % 12)
end

local function depth_of(node)
  local depth = 0
  for _, child in ipairs(node.children) do depth = math.max(depth, depth_of(child)) end
  return depth + 1
end

local function put(out, node, x, level, graph)
  local share = node.total / graph.total
  local width = share * graph.width
  if width < LEAST then return end
  local left, top = EDGE + x * graph.width, graph.bottom - level * ROW
  out[#out + 1] = ('<g data-x="%.9g" data-w="%.9g" data-name="%s"><title>%s: %d ms, %.1f %%</title>' ..
    '<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s" rx="1"/><text x="%.2f" y="%d">%s</text></g>\n'):format(
    x, share, escape(node.name), escape(node.name), node.total, share * 100, left, top, width, ROW - 1,
    color(node.name), left + 3, top + 12, escape(fits(node.name, width)))
  for _, child in ipairs(node.children) do
    put(out, child, x, level + 1, graph)
    x = x + child.total / graph.total
  end
end

---@param tree table of sluice.cli.profile.stacks
---@param title string
---@return string
function flame.draw(tree, title)
  local height = HEAD + depth_of(tree) * ROW + EDGE
  local out = { HEADER:format(WIDTH, height, WIDTH, height, EDGE, escape(title)) }
  local graph = { total = math.max(tree.total, 1), width = WIDTH - 2 * EDGE, bottom = height - EDGE - ROW }
  put(out, tree, 0, 0, graph)
  out[#out + 1] = SCRIPT:format(EDGE, graph.width, LETTER)
  return table.concat(out)
end

return flame
