-- SPDX-License-Identifier: Apache-2.0
-- Names of addresses in a running process, from the symbol tables of the files that it has mapped (ELF, 64 bits). Those
-- that have not been stripped know their static functions, too.

local ffi = require "ffi"

local symbols = {}

ffi.cdef [[
typedef struct { uint32_t name; uint8_t info, other; uint16_t section; uint64_t value, size; } sluice_elf_symbol;
typedef struct {
  uint32_t name, type; uint64_t flags, address, offset, size; uint32_t link, info; uint64_t alignment, entry;
} sluice_elf_section;
]]

local SYMTAB, DYNSYM, FUNCTION = 2, 11, 2
local SECTION_BYTES, SYMBOL_BYTES = ffi.sizeof("sluice_elf_section"), ffi.sizeof("sluice_elf_symbol")

local function number_at(text, from, bytes)
  local value = 0
  for i = bytes - 1, 0, -1 do value = value * 256 + text:byte(from + i + 1) end
  return value
end

local function read_at(file, from, bytes)
  if bytes <= 0 or not file:seek("set", from) then return nil end
  local text = file:read(bytes)
  return text and #text == bytes and text or nil
end

-- The file's sections by number from 0; nil when it is no such file.
local function sections_of(file)
  local head = read_at(file, 0, 64)
  if not head or head:sub(1, 6) ~= "\127ELF\2\1" then return nil end
  local count, from = number_at(head, 60, 2), number_at(head, 40, 8)
  local text = read_at(file, from, count * SECTION_BYTES)
  return text and ffi.cast("const sluice_elf_section *", text), count, text
end

-- All functions, by where they begin.
local function functions_of(file)
  local sections, count, anchor = sections_of(file)
  if not sections then return {} end
  local chosen
  for i = 0, count - 1 do
    if sections[i].type == SYMTAB or (sections[i].type == DYNSYM and not chosen) then chosen = sections[i] end
  end
  if not chosen or chosen.link >= count then return {} end
  local names_at = sections[chosen.link]
  local table_text = read_at(file, tonumber(chosen.offset), tonumber(chosen.size))
  local names = read_at(file, tonumber(names_at.offset), tonumber(names_at.size))
  if not table_text or not names or not anchor then return {} end
  local all, entries = {}, ffi.cast("const sluice_elf_symbol *", table_text)
  for i = 0, math.floor(#table_text / SYMBOL_BYTES) - 1 do
    local entry = entries[i]
    if entry.info % 16 == FUNCTION and entry.section ~= 0 and entry.name < #names then
      all[#all + 1] = { at = tonumber(entry.value), size = tonumber(entry.size),
        name = names:match("^[^%z]*", entry.name + 1) }
    end
  end
  table.sort(all, function(a, b) return a.at < b.at end)
  return all
end

local function load(path)
  local file = path:sub(1, 1) == "/" and io.open(path, "rb") -- the kernel's own has a name and no file
  if not file then return {} end
  local all = functions_of(file)
  file:close()
  return all
end

-- That which holds the address, by its size: the nearest one before it may be another.
local function find(all, address)
  local low, high = 1, #all
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if all[middle].at <= address then low = middle else high = middle - 1 end
  end
  local one = all[low]
  if one and one.at <= address and address < one.at + math.max(one.size, 1) then
    return (one.name:gsub("%.[%a]+%.%d+$", ""))
  end
end

local reader = {}
reader.__index = reader

---@return table reader for one or many processes that run the same program
function symbols.reader()
  return setmetatable({ files = {} }, reader)
end

-- `modules` as core/profile.h tells them.
---@param pid integer
---@param modules table[]
---@param address number
---@return string
function reader:name(pid, modules, address)
  for _, module in ipairs(modules) do
    local base, from, to, path = module[1], module[2], module[3], module[4]
    if address >= from and address < to then
      local file = path ~= "" and path or ("/proc/%d/exe"):format(pid)
      local key = path ~= "" and path or "program"
      self.files[key] = self.files[key] or load(file)
      return find(self.files[key], address - base) or ("[%s]"):format(path:match("[^/]+$") or "sluice")
    end
  end
  return "[compiled]"
end

return symbols
