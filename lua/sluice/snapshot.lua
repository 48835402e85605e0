-- SPDX-License-Identifier: Apache-2.0
-- The snapshot file: a configuration as a sequence of records, each a length (4 bytes, little-endian) and a Lua table
-- in string.buffer's encoding. Equal tables give equal bytes here, which string.buffer itself does not promise (it
-- follows the hash table's order), so a worker tells what changed by comparing bytes.
--
--   meta | plugin_code ... | certificates ... | services ... | routes ... | plugins ...
local buffer = require "string.buffer"
local ffi = require "ffi"
local lfs = require "lfs"

local snapshot = {}

local concat, char, sort = table.concat, string.char, table.sort
local floor = math.floor

-- ---- Encoding -------------------------------------------------------------------------------------------------------
-- string.buffer's tags (LuaJIT's lj_serialize.c): what its decoder reads.

local FALSE, TRUE, NULL = "\1", "\2", "\3"
local EMPTY_TABLE, HASH_TABLE, LIST_TABLE, MIXED_TABLE = "\8", "\9", "\12", "\13"

local function length_code(n)
  if n < 0xe0 then return char(n) end
  if n < 0x1fe0 then
    n = n - 0xe0
    return char(0xe0 + floor(n / 256), n % 256)
  end
  return "\255" .. char(n % 256, floor(n / 256) % 256, floor(n / 65536) % 256, floor(n / 16777216) % 256)
end

local lengths = {} -- of short texts, with the text tag's offset
for n = 0, 255 do lengths[n] = length_code(n + 0x20) end
local counts = {}
for n = 0, 255 do counts[n] = length_code(n) end

local number_box = ffi.new("double[1]")
local numbers = {} -- encoded, by value: ports, timeouts and statuses recur

local function encode_number(value)
  local code = numbers[value]
  if code and value ~= 0 then return code end
  number_box[0] = value
  code = "\7" .. ffi.string(number_box, 8)
  if value == floor(value) and value > 0 and value < 100000 then numbers[value] = code end
  return code
end

local function encode_string(out, n, value)
  local length = #value
  out[n + 1] = lengths[length] or length_code(length + 0x20)
  out[n + 2] = value
  return n + 2
end

local encode_value

-- Other keys than texts come from maps with numeric keys.
local function key_before(a, b)
  local x, y = type(a), type(b)
  if x ~= y then return x < y end
  return a < b
end

local function sorted_keys(value, length)
  local keys, count, mixed = {}, 0, false
  for key in pairs(value) do
    if type(key) == "number" then
      if key < 1 or key > length or key ~= floor(key) then
        count = count + 1
        keys[count], mixed = key, true
      end
    else
      count = count + 1
      keys[count] = key
    end
  end
  if mixed then sort(keys, key_before) else sort(keys) end
  return keys, count
end

local function encode_table(out, n, value)
  local length = #value
  local keys, count = sorted_keys(value, length)
  if length == 0 and count == 0 then
    out[n + 1] = EMPTY_TABLE
    return n + 1
  end
  n = n + 1
  out[n] = length == 0 and HASH_TABLE or count == 0 and LIST_TABLE or MIXED_TABLE
  if length > 0 then
    n = n + 1
    out[n] = counts[length + 1] or length_code(length + 1)
  end
  if count > 0 then
    n = n + 1
    out[n] = counts[count] or length_code(count)
  end
  for i = 1, length do n = encode_value(out, n, value[i]) end
  for i = 1, count do
    n = encode_value(out, n, keys[i])
    n = encode_value(out, n, value[keys[i]])
  end
  return n
end

function encode_value(out, n, value)
  local kind = type(value)
  if kind == "string" then return encode_string(out, n, value) end
  if kind == "table" then return encode_table(out, n, value) end
  n = n + 1
  if kind == "number" then
    out[n] = encode_number(value)
  elseif kind == "boolean" then
    out[n] = value and TRUE or FALSE
  elseif kind == "userdata" then
    out[n] = NULL -- cjson.null
  else
    error("a snapshot cannot hold a " .. kind)
  end
  return n
end

local scratch = {}

-- A table as string.buffer's decoder reads it, the same bytes for equal tables.
function snapshot.encode(value)
  local n = encode_value(scratch, 0, value)
  return concat(scratch, "", 1, n)
end

-- An encoder for tables of which `names` are all the keys there may be: the same bytes, without sorting each time.
function snapshot.encoder(names)
  names = { unpack(names) }
  sort(names)
  local codes = {}
  for i, name in ipairs(names) do codes[i] = length_code(#name + 0x20) .. name end
  return function(record)
    local n, count = 2, 0
    for i = 1, #names do
      local value = record[names[i]]
      if value ~= nil then
        count = count + 1
        scratch[n + 1] = codes[i]
        n = encode_value(scratch, n + 1, value)
      end
    end
    scratch[1], scratch[2] = HASH_TABLE, counts[count]
    return concat(scratch, "", 1, n)
  end
end

-- ---- Writing --------------------------------------------------------------------------------------------------------

ffi.cdef [[
int open(const char *path, int flags, ...);
int fsync(int fd);
int close(int fd);
char *strerror(int number);
]]

local KEPT = 3 -- snapshots beside the newest

local function length_prefix(n)
  return char(n % 256, floor(n / 256) % 256, floor(n / 65536) % 256, floor(n / 16777216) % 256)
end

local function sync(path)
  local fd = ffi.C.open(path, 0)
  if fd < 0 then return end
  ffi.C.fsync(fd)
  ffi.C.close(fd)
end

local function revisions(dir)
  local list = {}
  for name in lfs.dir(dir) do
    local number = tonumber(name:match("^(%d+)$"))
    if number then list[#list + 1] = number end
  end
  sort(list)
  return list
end

local function make_folder(path)
  if lfs.attributes(path, "mode") == "directory" then return true end
  local parent = path:match("^(.+)/[^/]+$")
  if parent then
    local made, why = make_folder(parent)
    if not made then return nil, why end
  end
  local made, why = lfs.mkdir(path)
  if made or lfs.attributes(path, "mode") == "directory" then return true end -- somebody else was faster
  return nil, ("cannot make the folder %s: %s"):format(path, why)
end

local function remove_old(dir, newest)
  local list = revisions(dir)
  for i = 1, #list - KEPT - 1 do
    if list[i] < newest then os.remove(dir .. "/" .. ("%d"):format(list[i])) end
  end
end

-- The folder of snapshots in a state folder, made when it is not there; nil, reason.
function snapshot.folder(state_dir)
  local dir = state_dir .. "/snapshots"
  local made, why = make_folder(dir)
  if not made then return nil, why end
  return dir
end

-- A revision above all that stand in the folder.
function snapshot.next_revision(dir)
  local list = revisions(dir)
  return (list[#list] or 0) + 1
end

-- A new file that only its owner may read, open for writing; nil, reason.
function snapshot.private_file(path)
  os.remove(path)
  local fd = ffi.C.open(path, 0x41, ffi.new("int", 384)) -- O_CREAT | O_WRONLY, rw-------
  if fd < 0 then return nil, ("cannot write %s: %s"):format(path, ffi.string(ffi.C.strerror(ffi.errno()))) end
  ffi.C.close(fd)
  return io.open(path, "wb")
end

-- Writes text into such a file and ends it. True, or nil and why: that a disk is full shows as late as the end.
function snapshot.finish(file, text)
  local written, why = file:write(text)
  local closed, other = file:close()
  if written and closed then return true end
  return nil, why or other
end

-- Writes the records (already encoded) as DIR/REVISION: whole or not at all. Only the owner may read it, since
-- references to secrets are resolved in it. Returns the path; nil, reason.
function snapshot.write(dir, revision, records)
  local path = ("%s/%d"):format(dir, revision)
  local temporary = path .. ".tmp"
  local file, why = snapshot.private_file(temporary)
  if not file then return nil, why end
  local parts = {}
  for i = 1, #records do
    parts[i * 2 - 1] = length_prefix(#records[i])
    parts[i * 2] = records[i]
  end
  local ok, failure = snapshot.finish(file, concat(parts))
  if not ok then
    os.remove(temporary)
    return nil, ("cannot write %s: %s"):format(temporary, failure)
  end
  sync(temporary)
  local renamed, reason = os.rename(temporary, path)
  if not renamed then return nil, reason end
  sync(dir)
  remove_old(dir, revision)
  return path
end

-- ---- Reading --------------------------------------------------------------------------------------------------------

local function next_record(self)
  local at = self.at
  local bytes = self.bytes
  if at > #bytes then return nil end
  local a, b, c, d = bytes:byte(at, at + 3)
  local length = d and a + b * 256 + c * 65536 + d * 16777216
  if not length or at + 3 + length > #bytes then error("the snapshot is cut short", 0) end
  self.at = at + 4 + length
  return bytes:sub(at + 4, at + 3 + length)
end

-- Reads a snapshot. `reader:next()` gives the next record's bytes (compare them with a running one's), nil at the end;
-- `reader.decode(bytes)` its table. So the caller may stop between any two records. Raises when the file is damaged.
-- nil, reason when it cannot be read.
function snapshot.open(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local bytes = file:read("*a")
  file:close()
  return { bytes = bytes, at = 1, next = next_record, decode = buffer.decode }
end

snapshot.decode = buffer.decode

return snapshot
