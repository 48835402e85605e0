-- SPDX-License-Identifier: Apache-2.0
-- Decoders of content codings, by the libraries that others read them with. What is cut off gives what could be read.
local ffi = require "ffi"

ffi.cdef [[
typedef struct {
  const uint8_t *next_in; unsigned avail_in; unsigned long total_in;
  uint8_t *next_out; unsigned avail_out; unsigned long total_out;
  const char *msg; void *state; void *zalloc; void *zfree; void *opaque; int data_type;
  unsigned long adler, reserved;
} spec_z_stream;
int inflateInit2_(spec_z_stream *, int, const char *, int);
int inflate(spec_z_stream *, int);
int inflateEnd(spec_z_stream *);
void *BrotliDecoderCreateInstance(void *, void *, void *);
void BrotliDecoderDestroyInstance(void *);
int BrotliDecoderDecompressStream(void *, size_t *, const uint8_t **, size_t *, uint8_t **, size_t *);
void *ZSTD_createDStream(void);
size_t ZSTD_freeDStream(void *);
typedef struct { const void *src; size_t size, pos; } spec_zstd_in;
typedef struct { void *dst; size_t size, pos; } spec_zstd_out;
size_t ZSTD_decompressStream(void *, spec_zstd_out *, spec_zstd_in *);
]]

local MOST = 4 * 1024 * 1024

local codings = {}

-- Each gives the text, and whether it was whole.

local function inflate(data, window)
  local z, stream, out = ffi.load "z", ffi.new "spec_z_stream", ffi.new("uint8_t[?]", MOST)
  assert(z.inflateInit2_(stream, window, "1.2.13", ffi.sizeof "spec_z_stream") == 0)
  stream.next_in, stream.avail_in, stream.next_out, stream.avail_out = data, #data, out, MOST
  local result = z.inflate(stream, 0)
  z.inflateEnd(stream)
  return ffi.string(out, MOST - stream.avail_out), result == 1 and stream.avail_in == 0
end

function codings.gzip(data) return inflate(data, 31) end

function codings.br(data)
  local library, out = ffi.load "brotlidec", ffi.new("uint8_t[?]", MOST)
  local state = library.BrotliDecoderCreateInstance(nil, nil, nil)
  local left, from = ffi.new("size_t[1]", #data), ffi.new("const uint8_t *[1]", ffi.cast("const uint8_t *", data))
  local room, to = ffi.new("size_t[1]", MOST), ffi.new("uint8_t *[1]", out)
  local result = library.BrotliDecoderDecompressStream(state, left, from, room, to, nil)
  library.BrotliDecoderDestroyInstance(state)
  return ffi.string(out, MOST - tonumber(room[0])), result == 1 and left[0] == 0
end

function codings.zstd(data)
  local library, room = ffi.load "zstd", ffi.new("uint8_t[?]", MOST)
  local stream = library.ZSTD_createDStream()
  local from = ffi.new("spec_zstd_in", { data, #data, 0 })
  local to = ffi.new("spec_zstd_out", { room, MOST, 0 })
  local left = 1
  while from.pos < from.size and left ~= 0 do
    left = tonumber(library.ZSTD_decompressStream(stream, to, from))
    if left > MOST then break end -- an error
  end
  library.ZSTD_freeDStream(stream)
  return ffi.string(room, to.pos), left == 0 and from.pos == from.size
end

return codings
