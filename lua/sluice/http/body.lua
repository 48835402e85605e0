-- SPDX-License-Identifier: Apache-2.0
-- Reads the body of a response off a connection, piece by piece, whatever its framing.

local head = require "sluice.http.head"

local min = math.min

local PIECE = 65536
local MAX_CHUNK_LINE, MAX_TRAILERS = 1024, 100

---@class sluice.http.reader
---@field over boolean the whole body has been read
local Reader = {}
Reader.__index = Reader

---@param socket table with receive_some, receive_line
---@param framing "none"|"chunked"|"length"|"close"
---@param length? integer
---@return sluice.http.reader
function Reader.new(socket, framing, length)
  return setmetatable({
    socket = socket, framing = framing, left = length or 0,
    over = framing == "none" or (framing == "length" and length == 0),
  }, Reader)
end

local function read_length(self, limit)
  local piece, err = self.socket:receive_some(min(limit, self.left))
  if not piece then return nil, err == "closed" and "closed before the end of the body" or err end
  self.left = self.left - #piece
  return piece
end

local function skip_trailers(self)
  for _ = 1, MAX_TRAILERS do
    local line, err = self.socket:receive_line(MAX_CHUNK_LINE)
    if not line then return err end
    if line == "" then return nil end
    if not head.field(line) then return "an invalid trailer" end
  end
  return "too many trailers"
end

-- The size of the next chunk; 0 after the last one and its trailers.
local function next_chunk(self)
  local line, err = self.socket:receive_line(MAX_CHUNK_LINE)
  if not line then return nil, err end
  local size = head.chunk_size(line)
  if not size then return nil, "an invalid chunk size" end
  if size == 0 then err = skip_trailers(self) end
  if err then return nil, err end
  return size
end

local function read_chunked(self, limit)
  if self.left == 0 then
    local size, err = next_chunk(self)
    if not size then return nil, err end
    if size == 0 then
      self.over = true
      return nil
    end
    self.left = size
  end
  local piece, err = read_length(self, limit)
  if not piece then return nil, err end
  if self.left == 0 then
    local line, bad = self.socket:receive_line(2)
    if line ~= "" then return nil, bad or "a chunk without its end" end
  end
  return piece
end

local function read_to_close(self, limit)
  local piece, err = self.socket:receive_some(limit)
  if piece then return piece end
  if err ~= "closed" then return nil, err end
  self.over = true
  return nil
end

-- The next bytes; nil at the end; nil and a reason when it failed.
---@param limit? integer bytes at most, 65536 unless told
---@return string|nil
---@return string|nil err
function Reader:read(limit)
  if self.over then return nil end
  limit = limit or PIECE
  if self.framing == "chunked" then return read_chunked(self, limit) end
  if self.framing == "close" then return read_to_close(self, limit) end
  local piece, err = read_length(self, limit)
  if piece and self.left == 0 then self.over = true end
  return piece, err
end

-- All that is left.
---@param max integer bytes
---@return string|nil
---@return string|nil err
function Reader:read_all(max)
  if self.framing == "length" and self.left > max then return nil, "the body is larger than " .. max .. " bytes" end
  local pieces, size = {}, 0
  while true do
    local piece, err = self:read()
    if err then return nil, err end
    if not piece then return table.concat(pieces) end
    size = size + #piece
    if size > max then return nil, "the body is larger than " .. max .. " bytes" end
    pieces[#pieces + 1] = piece
  end
end

return Reader
