-- SPDX-License-Identifier: Apache-2.0
-- Configuration files: which ones, read and parsed. A source is { file, tree, references, decoder, text }; its tree of
-- positions is made when the first error asks for it.
local lfs = require "lfs"
local cjson = require "cjson"
local json = require "sluice.config.json"
local yaml = require "sluice.config.yaml"

local source = {}

local DECODERS = { json = json, yaml = yaml, yml = yaml }

local function extension(path)
  return (path:match("%.(%w+)$") or ""):lower()
end

local function files_in(folder)
  local files = {}
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name:sub(1, 1) ~= "." and DECODERS[extension(name)] and lfs.attributes(path, "mode") == "file" then
      files[#files + 1] = path
    end
  end
  table.sort(files)
  return files
end

-- The files that `paths` (files and folders) stand for, in order; and what to watch for changes: folders themselves.
-- A path that is not there is in the list of errors.
function source.files(paths)
  local files, watch, errors = {}, {}, {}
  for _, path in ipairs(paths) do
    local mode = lfs.attributes(path, "mode")
    watch[#watch + 1] = path
    if mode == "directory" then
      local found = files_in(path)
      for _, file in ipairs(found) do files[#files + 1] = file end
      if #found == 0 then
        errors[#errors + 1] = { file = path, expected = "a folder with .yml, .yaml or .json files", found = "none" }
      end
    elseif mode then
      files[#files + 1] = path
    else
      errors[#errors + 1] = { file = path, expected = "a file or a folder", found = "nothing there" }
    end
  end
  return files, watch, errors
end

-- A source of a text. On a syntax error it has no tree, and the error is second.
function source.parse(file, text)
  local decoder = DECODERS[extension(file)] or (text:find("^%s*{") and json) or yaml
  local tree, references, err = decoder.decode(text)
  local result = { file = file, text = text, decoder = decoder, references = references }
  if err then return result, { file = file, line = err.line, column = err.column, message = err.message } end
  if tree == nil or tree == cjson.null then tree = {} end
  result.tree = tree
  return result
end

-- The text of a file; nil and the error.
function source.read(file)
  local handle, why = io.open(file, "rb")
  local text = handle and handle:read("*a")
  if handle then handle:close() end
  if text then return text end
  local reason = why and why:gsub("^.*: ", "") or "it cannot be read"
  return nil, { file = file, expected = "a file that can be read", found = reason }
end

-- A source of a table, for specs and for entities that come from elsewhere.
function source.of_table(name, tree)
  return { file = name, tree = tree, references = true }
end

-- Where the node at `keys` (a path from the top) begins: line, column. For a key that is not there, where its nearest
-- parent is. nil when the source never was a text.
function source.position(self, keys)
  if not self.text then return nil end
  if self.nodes == nil then self.nodes = self.decoder.positions(self.text) or false end
  local node = self.nodes
  if not node then return 1, 1 end
  local line, column = node.line, node.column
  for _, key in ipairs(keys) do
    local place = node.keys and node.keys[key]
    local child = node.children and node.children[key]
    if not child and not place then break end
    place = place or child
    line, column = place.line, place.column
    node = child or {}
  end
  return line, column
end

return source
