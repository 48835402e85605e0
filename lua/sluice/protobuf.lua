-- SPDX-License-Identifier: Apache-2.0
-- Protocol buffers whose types are known at run time: .proto files to descriptor sets, and messages to JSON and back
-- (the proto3 JSON mapping).
--
--   local schema = assert(protobuf.load(set))                       -- in `configure`: it takes a millisecond
--   schema:to_json("bank.Account", bytes)                           -- '{"owner":"ann"}'
--   schema:to_binary("bank.Account", '{"owner":"ann"}')             -- bytes

local ffi = require "ffi"
local check = require "sluice.api.check"
local native = require "sluice.ffi"

local C = native.C -- needs no worker: schemas are compiled while the configuration is checked
local ffi_string, type = ffi.string, type
local OK = 0

---@class sluice.protobuf
local protobuf = {}

local BUNDLED = native.home .. "/plugins/"
local WHY_BYTES = 512
local FLAGS = { defaults = C.PROTOBUF_DEFAULTS, proto_names = C.PROTOBUF_PROTO_NAMES,
  enum_numbers = C.PROTOBUF_ENUM_NUMBERS, known_only = C.PROTOBUF_KNOWN_ONLY, ordered = C.PROTOBUF_ORDERED }

local pointers = setmetatable({}, { __mode = "k" }) -- by schema, so that no plugin holds one
local input, output = ffi.new("struct bytes[1]"), ffi.new("struct bytes[1]")

local function text_of(bytes)
  return ffi_string(bytes.data, bytes.len)
end

-- ---- Messages -----------------------------------------------------------------------------------------------------

-- What a conversion is to do, as a number: made once, kept by whoever converts often.
---@param options? { defaults: boolean, proto_names: boolean, enum_numbers: boolean, known_only: boolean,
---  ordered: boolean }
---@return integer
function protobuf.flags(options)
  local flags = 0
  for name, flag in pairs(FLAGS) do
    if options and options[name] then flags = flags + flag end
  end
  return flags
end

local function result_of(status)
  local result = text_of(output[0])
  if status ~= OK then return nil, result end
  return result
end

---@class sluice.protobuf.schema
local Schema = {}
local schema_mt = { __index = Schema, __metatable = false }

---@param message string full name of the type
---@param bytes string
---@param flags? integer from protobuf.flags; `defaults`: fields without a value are written, `proto_names`: fields are
---  named as in the .proto file, `enum_numbers`: enums are numbers
---@return string|nil json
---@return string|nil err
function Schema:to_json(message, bytes, flags)
  check.string("schema:to_json", "message", message)
  check.string("schema:to_json", "bytes", bytes)
  input[0].data, input[0].len = bytes, #bytes
  local text, err = result_of(C.bridge_protobuf_to_json(pointers[self], message, input, flags or 0, output))
  return text, err
end

---@param message string full name of the type
---@param json string
---@param flags? integer from protobuf.flags; `known_only`: fields that the message has not are an error; `ordered`:
---  equal messages are equal bytes, and required fields are asked for
---@param field? string name of a field, whose value alone `json` is
---@return string|nil bytes
---@return string|nil err
function Schema:to_binary(message, json, flags, field)
  check.string("schema:to_binary", "message", message)
  check.string("schema:to_binary", "json", json)
  check.string_or_nil("schema:to_binary", "field", field)
  input[0].data, input[0].len = json, #json
  local bytes, err = result_of(C.bridge_protobuf_to_binary(pointers[self], message, field, input, flags or 0, output))
  return bytes, err
end

-- ---- What is in a schema ------------------------------------------------------------------------------------------

---@param message string full name of a type
---@return boolean
function Schema:has(message)
  check.string("schema:has", "message", message)
  return C.bridge_protobuf_has(pointers[self], message, #message)
end

-- A field by its name, as the .proto file or as JSON spells it.
---@param message string full name of the type
---@param name string
---@return { name: string, json: string, message: string|nil, repeated: boolean, map: boolean }|nil
function Schema:field(message, name)
  check.string("schema:field", "message", message)
  check.string("schema:field", "name", name)
  local field = ffi.new("struct protobuf_field[1]")
  input[0].data, input[0].len = name, #name
  if not C.bridge_protobuf_field(pointers[self], message, input, field) then return nil end
  local found = field[0]
  return { name = text_of(found.name), json = text_of(found.json), repeated = found.repeated, map = found.map,
    message = found.message.len > 0 and text_of(found.message) or nil }
end

local STEPS_MOST = 32
local steps_cell = ffi.new("int32_t[?]", STEPS_MOST)

-- A message of the last file of the set, which of a compiled one is the file that was compiled, by where it stands.
---@param steps integer[] from 0: its index in the file, then in the message that it lies in, and so on
---@return string|nil message full name
function Schema:message_at(steps)
  check.table("schema:message_at", "steps", steps)
  if #steps > STEPS_MOST then return nil end
  for i = 1, #steps do steps_cell[i - 1] = steps[i] end
  if not C.bridge_protobuf_message_at(pointers[self], steps_cell, #steps, output) then return nil end
  return text_of(output[0])
end

-- Where a message of that file stands.
---@param message string full name
---@return integer[]|nil steps as message_at takes them
function Schema:place(message)
  check.string("schema:place", "message", message)
  local count = C.bridge_protobuf_message_place(pointers[self], message, steps_cell, STEPS_MOST)
  if count == 0 then return nil end
  local steps = {}
  for i = 1, tonumber(count) do steps[i] = steps_cell[i - 1] end
  return steps
end

local function rules_of(pointer, method)
  local rule, rules = ffi.new("struct protobuf_rule[1]"), {}
  while C.bridge_protobuf_rule(pointer, method, #rules, rule) do
    local found = rule[0]
    rules[#rules + 1] = { verb = text_of(found.verb), pattern = text_of(found.pattern), body = text_of(found.body),
      response_body = text_of(found.response_body) }
  end
  return rules
end

-- The methods of all services. `path` is how gRPC calls one ("/bank.Accounts/Open"), `rules` how HTTP does, by its
-- google.api.http annotations.
---@return { path: string, input: string, output: string, client_streaming: boolean, server_streaming: boolean,
---  rules: { verb: string, pattern: string, body: string, response_body: string }[] }[]
function Schema:methods()
  local pointer, method, methods = pointers[self], ffi.new("struct protobuf_method[1]"), {}
  while C.bridge_protobuf_method(pointer, #methods, method) do
    local found = method[0]
    methods[#methods + 1] = { path = text_of(found.path), input = text_of(found.input), output = text_of(found.output),
      client_streaming = found.client_streaming, server_streaming = found.server_streaming,
      rules = rules_of(pointer, #methods) }
  end
  return methods
end

-- Makes a schema of a FileDescriptorSet, such as `compile` or `protoc --descriptor_set_out` gives.
---@param set string
---@return sluice.protobuf.schema|nil
---@return string|nil err
function protobuf.load(set)
  check.string("sluice.protobuf.load", "set", set)
  local why = ffi.new("char[?]", WHY_BYTES)
  local pointer = C.bridge_protobuf_new(set, #set, why, WHY_BYTES)
  if pointer == nil then return nil, ffi_string(why) end
  local schema = setmetatable({}, schema_mt)
  pointers[schema] = ffi.gc(pointer, C.bridge_protobuf_free)
  return schema
end

-- ---- Compiling ----------------------------------------------------------------------------------------------------

-- The name by which a file is imported: its path within the first folder that holds it.
local function name_within(path, folders)
  for _, folder in ipairs(folders) do
    local prefix = folder:gsub("/+$", "") .. "/"
    if path:sub(1, #prefix) == prefix then return path:sub(#prefix + 1) end
  end
  local folder, name = path:match("^(.*)/([^/]+)$")
  return name or path, folder == "" and "/" or folder or "."
end

local function files_read(compiler)
  local path, files = ffi.new("struct bytes[1]"), {}
  while C.bridge_protobuf_compiler_read(compiler, #files, path) do files[#files + 1] = text_of(path[0]) end
  return files
end

local function compile(compiler, name)
  local status = C.bridge_protobuf_compile(compiler, name, output)
  local result, files = text_of(output[0]), files_read(compiler)
  if status ~= OK then return nil, result, files end
  return result, nil, files
end

-- Compiles .proto texts. Imports of Google's well-known types, HTTP annotations and error details need no text.
---@param name string of the file to compile
---@param texts table<string, string> by the names by which they import each other
---@return string|nil set a FileDescriptorSet
---@return string|nil err a fault a line: "file:line:column: what"
function protobuf.compile(name, texts)
  check.string("sluice.protobuf.compile", "name", name)
  check.table("sluice.protobuf.compile", "texts", texts)
  local compiler = ffi.gc(C.bridge_protobuf_compiler_new(), C.bridge_protobuf_compiler_free)
  for key, text in pairs(texts) do C.bridge_protobuf_compiler_text(compiler, key, text, #text) end
  local set, err = compile(compiler, name)
  return set, err
end

local function compile_file(path, folders)
  local file, why = io.open(path, "rb")
  if not file then return nil, why, {} end
  file:close()
  local compiler = ffi.gc(C.bridge_protobuf_compiler_new(), C.bridge_protobuf_compiler_free)
  local name, own_folder = name_within(path, folders)
  if own_folder then C.bridge_protobuf_compiler_folder(compiler, own_folder) end
  for _, folder in ipairs(folders) do C.bridge_protobuf_compiler_folder(compiler, folder) end
  local set, err, files = compile(compiler, name)
  return set, err, files
end

local SET_BYTES_MOST = 64 * 1024 * 1024

-- What only those may call who may read files: see bind.
protobuf.compile_file = compile_file

function protobuf.read_set(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local set = file:read(SET_BYTES_MOST)
  file:close()
  if not set then return nil, path .. ": nothing to read" end
  return set
end

-- The functions above, for one plugin; and `compile_file`, a door to the disk that is open to the plugins that come
-- with the gateway and to those under `gateway.trusted_plugins`.
---@param owner { dir: string, trusted: boolean }
---@return sluice.protobuf
function protobuf.bind(owner)
  local bound = {}
  for name, fn in pairs(protobuf) do bound[name] = fn end
  bound.bind, bound.read_set = nil, nil
  local is_open = owner.trusted or owner.dir:find(BUNDLED, 1, true) == 1

  -- Compiles a .proto file. What it imports is looked for in `folders`, in order, behind its own folder unless that is
  -- within one of them. Blocks: for the checker, where schemas prepare configurations.
  ---@param path string
  ---@param folders? string[]
  ---@return string|nil set a FileDescriptorSet
  ---@return string|nil err a fault a line: "file:line:column: what"
  ---@return string[] files paths of all that was read
  function bound.compile_file(path, folders)
    if not is_open then error("sluice.protobuf.compile_file: for plugins under gateway.trusted_plugins", 2) end
    check.string("sluice.protobuf.compile_file", "path", path)
    local set, err, files = compile_file(path, type(folders) == "table" and folders or {})
    return set, err, files
  end

  return bound
end

return protobuf
