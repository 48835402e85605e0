-- SPDX-License-Identifier: Apache-2.0
-- Types of the system and of llhttp that headers of core/ stand on, for specs that load those headers.
local ffi = require "ffi"

local system = {}

-- The FFI never forgets a declaration, and another spec may have made it.
local function declare(text)
  local ok, why = pcall(ffi.cdef, text)
  assert(ok or why:find("redefine"), why)
end

-- <sys/uio.h>, for buffer.h.
function system.declare_vectors()
  declare("struct iovec { void *base; size_t len; };")
end

-- <netinet/in.h> and <sys/un.h>, for target.h.
function system.declare_addresses()
  declare("struct in_addr { uint32_t s_addr; };")
  declare("struct in6_addr { uint8_t s6_addr[16]; };")
  declare("struct sockaddr { uint16_t sa_family; char sa_data[14]; };")
  declare("struct sockaddr_in { uint16_t sin_family; uint16_t sin_port; struct in_addr sin_addr; char sin_zero[8]; };")
  declare("struct sockaddr_in6 { uint16_t sin6_family; uint16_t sin6_port; uint32_t sin6_flowinfo; "
    .. "struct in6_addr sin6_addr; uint32_t sin6_scope_id; };")
  declare("struct sockaddr_un { uint16_t sun_family; char sun_path[108]; };")
end

-- <llhttp.h>, for h1.h: the struct as the header of this build has it.
function system.declare_llhttp()
  local file = assert(io.open(".build/llhttp/lib/llhttp.h"))
  local text = file:read("*a")
  file:close()
  declare(assert(text:match("struct llhttp__internal_s %b{};")))
  declare("typedef struct llhttp__internal_s llhttp_t;")
end

return system
