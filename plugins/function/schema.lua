-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local function text_of(files, field, path)
  local text, err = files.text(path)
  if not text then return nil, { field = field, message = err } end
  return text
end

-- "dir/name.lua:3: message" for what is no Lua.
local function check(name, text)
  local chunk, err = load(text, "=" .. name, "t")
  if not chunk then return err end
end

local function read(config, files)
  if config.file then
    local text, fault = text_of(files, "file", files.path(config.file))
    if not text then return nil, fault end
    return { [config.file:match("[^/]+$")] = text }, ""
  end
  local texts, err = files.folder(files.path(config.directory), ".lua")
  if not texts then return nil, { field = "directory", message = err } end
  local named, prefix = {}, (config.directory:gsub("/+$", ""):match("[^/]+$") or "functions") .. "/"
  for name, text in pairs(texts) do named[prefix .. name] = text end
  return named, prefix
end

-- Workers get the files' texts with the configuration, and read none.
local function prepare(config, files)
  local texts, prefix = read(config, files)
  if not texts then return prefix end
  for name, text in pairs(texts) do
    local err = check(name, text)
    if err then return { field = config.file and "file" or "directory", message = err } end
  end
  config.__files, config.__prefix = texts, prefix
end

return {
  name = "function",
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { directory = { type = "string", about = "folder of functions, relative to the configuration's: `a/b.lua` in it "
        .. "answers for the path `a/b` behind the route's" } },
      { file = { type = "string", about = "one file, which answers for all paths of the route" } },
      { timeout = { type = "integer", required = true, default = 10000, between = { 1, 3600000 },
        about = "milliseconds until the client is told 504" } },
      { memory_limit = { type = "integer", required = true, default = 64, between = { 1, 4096 },
        about = "MiB that Lua's memory may grow by in one call, garbage included" } },
      { max_in_flight = { type = "integer", required = true, default = 1000, between = { 1, 1000000 },
        about = "calls of one function in one worker; more are told 503" } },
    }, entity_checks = { { only_one_of = { "directory", "file" } } } } },
  },
  prepare = prepare,
}
