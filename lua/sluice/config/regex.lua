-- SPDX-License-Identifier: Apache-2.0
-- Is this a regular expression that the router will accept? Asks the router's own library, PCRE2.
local ffi = require "ffi"

ffi.cdef [[
void *pcre2_compile_8(const char *pattern, size_t length, uint32_t options, int *errorcode, size_t *erroroffset,
                      void *context);
void pcre2_code_free_8(void *code);
int pcre2_get_error_message_8(int errorcode, char *buffer, size_t bufflen);
]]

local C = ffi.load("libpcre2-8.so.0")
local code = ffi.new("int[1]")
local offset = ffi.new("size_t[1]")
local message = ffi.new("char[256]")

local regex = {}

-- Returns true, or nil and why not.
function regex.check(pattern)
  local compiled = C.pcre2_compile_8(pattern, #pattern, 0, code, offset, nil)
  if compiled ~= nil then
    C.pcre2_code_free_8(compiled)
    return true
  end
  C.pcre2_get_error_message_8(code[0], message, 256)
  return nil, ("%s at offset %d"):format(ffi.string(message), tonumber(offset[0]))
end

return regex
