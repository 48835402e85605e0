-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

require("spec.support.system").declare_vectors()
local C = core.load("buffer.h")

describe("a buffer", function()
  local pool, buffers

  local function new()
    local buffer = ffi.new("struct buffer")
    C.buffer_init(buffer, pool)
    buffers[#buffers + 1] = buffer
    return buffer
  end

  local function content(buffer)
    local out = ffi.new("char[?]", tonumber(buffer.bytes) + 1)
    C.buffer_copy_out(buffer, out)
    return ffi.string(out, buffer.bytes)
  end

  -- A chunk that begins with `text`.
  local function chunk_of(text)
    local chunk = C.chunk_take(pool)
    ffi.copy(chunk.data, text, #text)
    chunk.used = #text
    return chunk
  end

  before_each(function()
    pool, buffers = ffi.new("struct chunk_pool"), {}
    C.chunk_pool_init(pool, 4)
  end)

  after_each(function()
    for _, buffer in ipairs(buffers) do C.buffer_clear(buffer) end
    assert.equal(0, tonumber(pool.out)) -- every reference has been given back
    C.chunk_pool_close(pool)
  end)

  it("gives back what was appended, however long", function()
    local buffer = new()
    local long = ("0123456789"):rep(20000)
    C.buffer_append(buffer, "head", 4)
    C.buffer_append(buffer, long, #long)
    C.buffer_append(buffer, "tail", 4)
    assert.equal("head" .. long .. "tail", content(buffer))
  end)

  it("packs small copies into one chunk", function()
    local buffer = new()
    for _ = 1, 1000 do C.buffer_append(buffer, "abc", 3) end
    assert.equal(1, tonumber(pool.out))
    assert.equal(1, buffer.count)
    assert.equal(3000, tonumber(buffer.bytes))
  end)

  it("does not write into a chunk that somebody else holds", function()
    local buffer, chunk = new(), chunk_of("shared")
    C.buffer_append_ref(buffer, chunk, chunk.data, 6)
    C.buffer_append(buffer, "own", 3)
    assert.equal(6, chunk.used)
    assert.equal("sharedown", content(buffer))
    C.chunk_release(chunk)
  end)

  it("joins pieces that lie side by side in a chunk", function()
    local buffer, chunk = new(), chunk_of("abcdef")
    C.buffer_append_ref(buffer, chunk, chunk.data, 3)
    C.buffer_append_ref(buffer, chunk, chunk.data + 3, 3)
    assert.equal(1, buffer.count)
    assert.equal(2, chunk.refs)
    C.chunk_release(chunk)
  end)

  it("copies small pieces behind others and refers to large ones", function()
    local buffer, chunk = new(), chunk_of(("x"):rep(20000))
    for at = 0, 999 do C.buffer_append_piece(buffer, chunk, chunk.data + at * 2, 1) end
    assert.is_true(buffer.count <= 2)
    assert.equal(2, chunk.refs)
    C.buffer_append_piece(buffer, chunk, chunk.data + 3000, 10000)
    assert.equal(3, chunk.refs)
    assert.equal(11000, tonumber(buffer.bytes))
    C.chunk_release(chunk)
  end)

  it("loses from its front what is consumed", function()
    local buffer, chunk = new(), chunk_of("abcdef")
    C.buffer_append(buffer, "0123", 4)
    C.buffer_append_ref(buffer, chunk, chunk.data, 6)
    C.buffer_consume(buffer, 2)
    assert.equal("23abcdef", content(buffer))
    C.buffer_consume(buffer, 3)
    assert.equal("bcdef", content(buffer))
    C.buffer_consume(buffer, 5)
    assert.equal(0, buffer.count)
    assert.equal(1, chunk.refs)
    C.chunk_release(chunk)
  end)

  it("reserves room that counts only once it is committed", function()
    local buffer = new()
    local room = C.buffer_reserve(buffer, 100)
    ffi.copy(room, "filled", 6)
    assert.equal(0, tonumber(buffer.bytes))
    C.buffer_commit(buffer, 6)
    assert.equal("filled", content(buffer))
    assert.is_true(C.buffer_reserve(buffer, 100) == room + 6)
  end)

  it("moves to another up to so many bytes, dividing a piece where it must", function()
    local from, to = new(), new()
    local chunk = chunk_of("abc")
    C.buffer_append_ref(from, chunk, chunk.data, 3)
    C.buffer_append(from, "defgh", 5)
    C.chunk_release(chunk)
    assert.equal(0, C.buffer_move(to, from, 5))
    assert.same({ "abcde", "fgh" }, { content(to), content(from) })
    assert.equal(0, C.buffer_move(to, from, 100))
    assert.same({ "abcdefgh", "" }, { content(to), content(from) })
  end)

  it("shares its content and keeps it", function()
    local from, to = new(), new()
    C.buffer_append(from, "shared", 6)
    C.buffer_share(to, from)
    C.buffer_consume(from, 6)
    assert.equal("shared", content(to))
  end)

  it("shows its front as vectors, without empty ones", function()
    local buffer, vectors = new(), ffi.new("struct iovec[2]")
    local chunk = chunk_of("a.c")
    C.buffer_append_ref(buffer, chunk, chunk.data, 1)
    C.buffer_append(buffer, "b", 1)
    C.buffer_append_ref(buffer, chunk, chunk.data + 2, 1)
    C.chunk_release(chunk)
    assert.equal(2, C.buffer_iov(buffer, vectors, 2))
    assert.equal("b", ffi.string(vectors[1].base, vectors[1].len))
    C.buffer_consume(buffer, 3)
    C.buffer_reserve(buffer, 10)
    assert.equal(0, C.buffer_iov(buffer, vectors, 2))
  end)

  it("owns no memory when it is empty, however long it has been", function()
    local buffer, chunk = new(), chunk_of(("x"):rep(200))
    for index = 1, 100 do C.buffer_append_ref(buffer, chunk, chunk.data + index * 2, 1) end
    C.chunk_release(chunk)
    assert.is_true(buffer.room > 16)
    C.buffer_consume(buffer, 100)
    assert.is_true(buffer.room <= 16)
    assert.equal(0, tonumber(pool.out))
  end)

  it("goes on for ever in a queue of bounded room", function()
    local buffer, chunk = new(), chunk_of(("x"):rep(2000))
    for index = 1, 1000 do
      C.buffer_append_ref(buffer, chunk, chunk.data + index * 2 - 1, 1)
      if index > 5 then C.buffer_consume(buffer, 1) end
    end
    C.chunk_release(chunk)
    assert.equal(5, tonumber(buffer.bytes))
    assert.is_true(buffer.room <= 16)
  end)
end)

describe("the pool of chunks", function()
  it("keeps so many that are free and gives the rest back", function()
    local pool, chunks = ffi.new("struct chunk_pool"), {}
    C.chunk_pool_init(pool, 2)
    for index = 1, 4 do chunks[index] = C.chunk_take(pool) end
    for index = 1, 4 do C.chunk_release(chunks[index]) end
    assert.equal(2, pool.free_count)
    assert.equal(0, tonumber(pool.out))
    local again = C.chunk_take(pool)
    assert.same({ 1, 0 }, { again.refs, again.used })
    C.chunk_release(again)
    C.chunk_pool_close(pool)
  end)
end)
