-- SPDX-License-Identifier: Apache-2.0
-- What plugins need that speak gRPC with a service for a client that does not: frames, statuses, the schemas that their
-- configurations name. How an answer becomes JSON: sluice.grpc.answer.

local buffer = require "string.buffer"
local bit = require "bit"
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local native = require "sluice.ffi"
local protobuf = require "sluice.protobuf"

local byte, char, find, gsub = string.byte, string.char, string.find, string.gsub
local tonumber = tonumber

---@class sluice.grpc
local grpc = {}

-- ---- Frames -------------------------------------------------------------------------------------------------------

local HEAD_BYTES = 5 -- a byte of flags, four of length
local COMPRESSED = 1

---@param message string
---@param flags? integer
---@return string
function grpc.frame(message, flags)
  local n = #message
  return char(flags or 0, bit.rshift(n, 24), bit.band(bit.rshift(n, 16), 255), bit.band(bit.rshift(n, 8), 255),
    bit.band(n, 255)) .. message
end

---@class sluice.grpc.reader
local Reader = {}
local reader_mt = { __index = Reader, __metatable = false }

-- Takes frames out of a body that comes in pieces of any size.
---@param most integer bytes of a message
---@return sluice.grpc.reader
function grpc.reader(most)
  return setmetatable({ bytes = buffer.new(), most = most }, reader_mt)
end

---@param piece string
function Reader:put(piece)
  self.bytes:put(piece)
end

-- The next message; nil when none is whole yet, and why when none will ever be.
---@return string|nil message
---@return string|nil err
function Reader:next()
  local bytes = self.bytes
  if not self.need then
    if #bytes < HEAD_BYTES then return nil end
    local flags, a, b, c, d = byte(bytes:get(HEAD_BYTES), 1, HEAD_BYTES)
    self.need = a * 16777216 + b * 65536 + c * 256 + d
    if flags == COMPRESSED then return nil, "a compressed message, which was not asked for" end
    if flags ~= 0 then return nil, "a message with unknown flags" end
    if self.need > self.most then return nil, ("a message of %.0f bytes, more than %d"):format(self.need, self.most) end
  end
  if #bytes < self.need then return nil end
  local message = self.need > 0 and bytes:get(self.need) or ""
  self.need = nil
  return message
end

---@return boolean whether nothing of a further message has come
function Reader:is_empty()
  return not self.need and #self.bytes == 0
end

-- ---- Statuses -----------------------------------------------------------------------------------------------------

grpc.OK, grpc.UNKNOWN, grpc.INVALID_ARGUMENT, grpc.NOT_FOUND, grpc.RESOURCE_EXHAUSTED = 0, 2, 3, 5, 8
grpc.UNIMPLEMENTED, grpc.INTERNAL = 12, 13

local HTTP = { [0] = 200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401 }

-- Of an answer without a status of gRPC's, by its HTTP status: as gRPC's own clients take it.
local OF_HTTP = { [400] = 13, [401] = 16, [403] = 7, [404] = 12, [429] = 14, [502] = 14, [503] = 14, [504] = 14 }

---@param code integer
---@return integer status of HTTP
function grpc.http_status(code)
  return HTTP[code] or 500
end

-- What an answer of the gateway's own with an HTTP status means.
---@param status integer
---@return integer code
function grpc.code_of(status)
  return native.C.bridge_grpc_status(status)
end

local function from_hex(digits)
  return char(tonumber(digits, 16))
end

-- Values of fields named -bin are written with padding or without.
local function from_base64(text)
  local bare = gsub(text, "=+$", "")
  return crypto.base64_decode(bare .. ("="):rep(-#bare % 4))
end

-- The status in an answer of the service: in its trailers, or, where there is nothing else, in its fields.
---@param exchange sluice.exchange
---@return integer|nil code nil: not told yet
---@return string message
---@return string|nil details google.rpc.Status, as bytes
function grpc.status(exchange)
  local response = exchange.service.response
  local code = response:get_trailer("grpc-status")
  local get = code and response.get_trailer or response.get_header
  code = tonumber(code or response:get_header("grpc-status"))
  if not code then return nil, "" end
  local message = gsub(get(response, "grpc-message") or "", "%%(%x%x)", from_hex)
  local details = get(response, "grpc-status-details-bin")
  return code, message, details and from_base64(details)
end

-- The same at the end of an answer, when something has to be told.
---@param exchange sluice.exchange
---@return integer code
---@return string message
---@return string|nil details
function grpc.final_status(exchange)
  local code, message, details = grpc.status(exchange)
  if code then return code, message, details end
  local status = exchange.service.response:get_status()
  if status == 200 then return grpc.UNKNOWN, "the service told no status" end
  return OF_HTTP[status] or grpc.UNKNOWN, ("the service answered with HTTP status %s"):format(status or "none")
end

-- ---- Errors as JSON -----------------------------------------------------------------------------------------------

-- A google.rpc.Status whose details are not looked into, for nobody knows all of their types.
local STATUS = [[
  syntax = "proto3";
  import "google/rpc/error_details.proto";
  message Status { repeated Detail details = 3; }
  message Detail { string type_url = 1; bytes value = 2; }
]]

local status_schema

local function own_schema()
  if not status_schema then
    status_schema = assert(protobuf.load(assert(protobuf.compile("status.proto", { ["status.proto"] = STATUS }))))
  end
  return status_schema
end

-- One detail by the first schema that knows its type; else as it is.
local function detail_of(schema, detail)
  local url = detail.type_url or ""
  local name, bytes = url:match("([^/]*)$"), crypto.base64_decode(detail.value or "") or ""
  for _, its in ipairs { schema or own_schema(), own_schema() } do
    local text = its:has(name) and its:to_json(name, bytes)
    local value = text and json.decode(text)
    if type(value) == "table" then
      value["@type"] = url
      return value
    end
  end
  return { ["@type"] = url, value = detail.value or "" }
end

local AS_WRITTEN = protobuf.flags { proto_names = true }

local function details_of(schema, bytes)
  local details = json.array()
  local text = bytes and own_schema():to_json("Status", bytes, AS_WRITTEN)
  local status = text and json.decode(text) or {}
  for i, detail in ipairs(status.details or {}) do details[i] = detail_of(schema, detail) end
  return details
end

-- What is no UTF-8 cannot stand in JSON.
local function printable(text)
  if not find(text, "[\128-\255]") then return text end
  local ok = own_schema():to_binary("Detail", json.encode(text), 0, "type_url")
  return ok and text or (gsub(text, "[\128-\255]", "?"))
end

-- {"code":5,"message":"...","details":[...]}
---@param code integer
---@param message string
---@param details? string google.rpc.Status as bytes
---@param schema? sluice.protobuf.schema that may know the details' types
---@return string
function grpc.error_json(code, message, details, schema)
  return ('{"code":%d,"message":%s,"details":%s}'):format(code, json.encode(printable(message)),
    json.encode(details_of(schema, details)))
end

-- ---- Schemas of configurations ------------------------------------------------------------------------------------

-- Fields of a plugin's configuration that name a schema.
---@return table[]
function grpc.fields()
  return {
    { proto = { type = "string",
      about = ".proto file with the types and methods of the service; its name is relative to the folder of the "
        .. "configuration" } },
    { descriptor_set = { type = "string",
      about = "file with a FileDescriptorSet, as `protoc --include_imports --descriptor_set_out` writes it, in place "
        .. "of `proto`" } },
    { include_dirs = { type = "array", elements = { type = "string" },
      about = "folders in which imports of `proto` are looked for, behind its own (which stands back when it lies in "
        .. "one of them)" } },
    { max_message_bytes = { type = "integer", default = 4194304, between = { 1, 1073741824 },
      about = "bytes of a message that is converted" } },
  }
end

local function fault(field, expected, found)
  return nil, { field = field, expected = expected, found = found }
end

local function read_set(config, files)
  local path = files.path(config.descriptor_set)
  files.read(path)
  local set, why = protobuf.read_set(path)
  if not set then return fault("descriptor_set", "a file that can be read", why) end
  return set
end

local function compile_proto(config, files)
  local path, folders = files.path(config.proto), {}
  for i, folder in ipairs(config.include_dirs or {}) do folders[i] = files.path(folder) end
  local set, err, read = protobuf.compile_file(path, folders)
  files.read(path)
  for _, name in ipairs(read) do files.read(name) end
  if not set then return fault("proto", "a .proto file that compiles", (err:gsub("\n", "; "))) end
  return set
end

-- For the `prepare` of a plugin's schema: the descriptor set that a configuration names goes into it.
---@param config table
---@param files table
---@return sluice.protobuf.schema|nil schema nil when there is none, or with an error
---@return table|nil fault
function grpc.prepare(config, files)
  local set, wrong
  if config.descriptor_set then
    set, wrong = read_set(config, files)
  elseif config.proto then
    set, wrong = compile_proto(config, files)
  end
  if not set then return nil, wrong end
  local schema, why = protobuf.load(set)
  local field = config.descriptor_set and "descriptor_set" or "proto"
  if not schema then return fault(field, "a descriptor set", why) end
  config.__descriptors = set
  return schema
end

local schemas = setmetatable({}, { __mode = "v" }) -- by descriptor set

-- The schema of a prepared configuration, made once for all that name the same.
---@param config table
---@return sluice.protobuf.schema|nil
function grpc.schema(config)
  local set = config.__descriptors
  if not set then return nil end
  local schema = schemas[set]
  if not schema then
    schema = assert(protobuf.load(set))
    schemas[set] = schema
  end
  return schema
end

grpc.answer = require("sluice.grpc.answer")(grpc)

local BUNDLED = native.home .. "/plugins/"

-- For one plugin. Of the disk, it may read what a configuration names when it came with the gateway or is trusted.
---@param owner { dir: string, trusted: boolean }
function grpc.bind(owner)
  local bound = {}
  for name, value in pairs(grpc) do bound[name] = value end
  bound.bind = nil
  if not owner.trusted and not find(owner.dir, BUNDLED, 1, true) then
    function bound.prepare() error("sluice.grpc.prepare: for plugins under gateway.trusted_plugins", 2) end
  end
  return bound
end

return grpc
