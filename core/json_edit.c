// SPDX-License-Identifier: Apache-2.0
// The text is cut into parts as far as the edits look: a container that is opened becomes a list of its members, every
// other value stays one piece.
//
//   {"a":1,"b":{"c":[2]},"d":3}   remove b.c   ->   { "a":1 | "b":{ } | "d":3 }
//
// Parts are found by number, since their array grows.
#include "json_edit.h"

#include <assert.h>
#include <stdlib.h>

#include "bridge.h"
#include "error.h"

enum { NONE = UINT32_MAX, ROOT = 0, PARTS_MOST = 1 << 22, KEPT_BYTES = 1 << 20 };

enum kind { WHOLE, OBJECT, ARRAY }; // WHOLE: not opened, or no container

struct part {
  struct slice name, value; // name: as it is written, in its quotes; empty in arrays
  uint32_t first, next;     // of an opened container; of its siblings
  enum kind kind;
};

struct edit {
  enum json_step step;
  struct bytes *path; // names are written as in JSON, and behind that in plain
  struct slice *quoted;
  uint32_t count;
  struct slice value;
};

struct json_edits {
  struct edit *edits;
  uint32_t count;
  struct part *parts;
  uint32_t part_count, part_room;
  char *out;
  size_t used, room;
  char **owned; // copies of names and values
  uint32_t owned_count;
  bool failed; // no memory in this run
};

struct json_edits *json_edits_new(void) {
  return calloc(1, sizeof(struct json_edits));
}

void json_edits_free(struct json_edits *edits) {
  if (!edits) return;
  for (uint32_t i = 0; i < edits->owned_count; i++) free(edits->owned[i]);
  for (uint32_t i = 0; i < edits->count; i++) {
    free(edits->edits[i].path);
    free(edits->edits[i].quoted);
  }
  free(edits->owned);
  free(edits->edits);
  free(edits->parts);
  free(edits->out);
  free(edits);
}

// ---- Making the list ----

// Room of the list's own; NULL: no memory.
static char *own(struct json_edits *edits, size_t bytes) {
  char **owned = realloc(edits->owned, (edits->owned_count + 1) * sizeof *owned);
  if (!owned) return NULL;
  edits->owned = owned;
  char *room = malloc(bytes + 1);
  if (room) owned[edits->owned_count++] = room;
  return room;
}

static struct slice copy(struct json_edits *edits, struct slice text) {
  char *room = own(edits, text.len);
  if (room && text.len) memcpy(room, text.data, text.len);
  return (struct slice){room, text.len};
}

// The text in quotes, as JSON writes it. Data is NULL without memory.
static struct slice quote(struct json_edits *edits, struct slice text) {
  static const char digits[] = "0123456789abcdef";
  char *room = own(edits, (size_t)text.len * 6 + 2), *to = room;
  if (!room) return (struct slice){0};
  *to++ = '"';
  for (uint32_t i = 0; i < text.len; i++) {
    uint8_t c = (uint8_t)text.data[i];
    if (c == '"' || c == '\\') *to++ = '\\';
    if (c >= 0x20) {
      *to++ = (char)c;
      continue;
    }
    memcpy(to, "\\u00", 4);
    to[4] = digits[c >> 4];
    to[5] = digits[c & 15];
    to += 6;
  }
  *to++ = '"';
  return (struct slice){room, (uint32_t)(to - room)};
}

static int take_path(struct json_edits *edits, struct edit *edit, const struct bytes *path) {
  for (uint32_t i = 0; i < edit->count; i++) {
    edit->path[i] = path[i];
    if (!path[i].data) continue;
    struct slice name = {path[i].data, path[i].len};
    struct slice kept = copy(edits, name);
    edit->quoted[i] = quote(edits, name);
    if (!kept.data || !edit->quoted[i].data) return ERROR_MEMORY;
    edit->path[i] = (struct bytes){kept.data, kept.len};
  }
  return 0;
}

int json_edits_add(struct json_edits *edits, int step, const struct bytes *path, uint32_t count, struct slice value) {
  if (step < JSON_REMOVE || step > JSON_ALLOW) return ERROR_INVALID;
  if (step != JSON_ALLOW && (count == 0 || count > JSON_PATH_MOST)) return ERROR_INVALID;
  struct edit *list = realloc(edits->edits, (edits->count + 1) * sizeof *list);
  if (!list) return ERROR_MEMORY;
  edits->edits = list;
  struct edit *edit = &list[edits->count];
  *edit = (struct edit){.step = (enum json_step)step, .count = count};
  edit->path = calloc(count + 1, sizeof *edit->path);
  edit->quoted = calloc(count + 1, sizeof *edit->quoted);
  edits->count++;
  if (!edit->path || !edit->quoted || take_path(edits, edit, path) < 0) return ERROR_MEMORY;
  edit->value = step == JSON_RENAME ? quote(edits, value) : copy(edits, value);
  return edit->value.data ? 0 : ERROR_MEMORY;
}

int json_edits_value(struct json_edits *edits, uint32_t number, struct slice value) {
  if (number >= edits->count || edits->edits[number].step == JSON_RENAME) return ERROR_INVALID;
  edits->edits[number].value = value;
  return 0;
}

// ---- Reading, of what is known to be JSON ----

static const char *past_space(const char *p, const char *end) {
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
  return p;
}

// Behind the string that begins at `p`.
static const char *past_string(const char *p, const char *end) {
  for (p++; p < end && *p != '"'; p++)
    if (*p == '\\') p++;
  return p < end ? p + 1 : end;
}

static const char *past_container(const char *p, const char *end) {
  uint32_t depth = 0;
  while (p < end) {
    char c = *p;
    if (c == '"') {
      p = past_string(p, end);
      continue;
    }
    p++;
    if (c == '{' || c == '[') depth++;
    if ((c == '}' || c == ']') && --depth == 0) return p;
  }
  return end;
}

static const char *past_value(const char *p, const char *end) {
  if (*p == '"') return past_string(p, end);
  if (*p == '{' || *p == '[') return past_container(p, end);
  while (p < end && *p != ',' && *p != '}' && *p != ']' && (uint8_t)*p > ' ') p++;
  return p;
}

static uint32_t new_part(struct json_edits *edits, struct slice name, struct slice value) {
  if (edits->part_count == edits->part_room) {
    uint32_t room = edits->part_room ? edits->part_room * 2 : 64;
    struct part *parts = room <= PARTS_MOST ? realloc(edits->parts, room * sizeof *parts) : NULL;
    if (!parts) {
      edits->failed = true;
      return NONE;
    }
    edits->parts = parts;
    edits->part_room = room;
  }
  edits->parts[edits->part_count] = (struct part){.name = name, .value = value, .first = NONE, .next = NONE};
  return edits->part_count++;
}

// One member or element at `p`, hung behind `last` (NONE: it is the first of `of`). Gives where the text goes on.
static const char *read_part(struct json_edits *edits, uint32_t of, uint32_t *last, const char *p, const char *end) {
  struct slice name = {0};
  if (edits->parts[of].kind == OBJECT) {
    const char *stop = past_string(p, end);
    name = (struct slice){p, (uint32_t)(stop - p)};
    p = past_space(past_space(stop, end) + 1, end); // the colon
  }
  const char *stop = past_value(p, end);
  uint32_t part = new_part(edits, name, (struct slice){p, (uint32_t)(stop - p)});
  if (part == NONE) return end;
  if (*last == NONE)
    edits->parts[of].first = part;
  else
    edits->parts[*last].next = part;
  *last = part;
  p = past_space(stop, end);
  return p < end && *p == ',' ? past_space(p + 1, end) : p;
}

// Cuts a container into its members. Gives what it is.
static enum kind open_part(struct json_edits *edits, uint32_t number) {
  struct part *part = &edits->parts[number];
  if (part->kind != WHOLE) return part->kind;
  char c = part->value.len ? part->value.data[0] : 0;
  if (c != '{' && c != '[') return WHOLE;
  part->kind = c == '{' ? OBJECT : ARRAY;
  const char *end = part->value.data + part->value.len - 1, *p = past_space(part->value.data + 1, end);
  uint32_t last = NONE;
  while (p < end) p = read_part(edits, number, &last, p, end);
  return edits->parts[number].kind;
}

static uint32_t utf8(uint32_t code, char out[4]) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  uint32_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
  for (uint32_t i = more; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
  out[0] = (char)(lead[more] | code);
  return more + 1;
}

static uint32_t hex4(const char *p) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) {
    char c = ascii_lower(p[i]);
    value = value * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  return value;
}

// One escape behind its backslash: its bytes in `out`, and how many of the text it takes.
static uint32_t unescape(const char *p, char out[4], uint32_t *len) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const char *found = strchr(from, *p);
  if (found) {
    *out = to[found - from];
    *len = 1;
    return 1;
  }
  uint32_t code = hex4(p + 1);
  bool pair = code >= 0xd800 && code <= 0xdbff;
  if (pair) code = 0x10000 + ((code - 0xd800) << 10) + (hex4(p + 7) - 0xdc00);
  *len = utf8(code, out);
  return pair ? 11 : 5;
}

// Whether a name as it is written says `plain`.
static bool is_named(struct slice written, struct bytes plain) {
  struct slice inner = {written.data + 1, written.len - 2};
  if (!memchr(inner.data, '\\', inner.len)) return slice_equal(inner, (struct slice){plain.data, plain.len});
  uint32_t at = 0;
  for (uint32_t i = 0; i < inner.len;) {
    char piece[4] = {inner.data[i]};
    uint32_t len = 1, taken = 1;
    if (inner.data[i] == '\\') taken += unescape(inner.data + i + 1, piece, &len);
    i += inner.data[i] == '\\' ? taken : 1;
    if (plain.len - at < len || memcmp(plain.data + at, piece, len) != 0) return false;
    at += len;
  }
  return at == plain.len;
}

// ---- Editing ----

static struct part *part_at(struct json_edits *edits, uint32_t number) {
  return &edits->parts[number];
}

// What points to a part: its container's `first`, or the `next` of the one before.
static uint32_t *link_to(struct json_edits *edits, uint32_t of, uint32_t before) {
  return before == NONE ? &edits->parts[of].first : &edits->parts[before].next;
}

static bool is_meant(const struct part *part, struct bytes step, uint32_t place) {
  if (step.data) return part->name.data && is_named(part->name, step);
  return !part->name.data && (step.len == 0 || step.len == place);
}

static void remove_named(struct json_edits *edits, uint32_t of, struct bytes step, uint32_t but) {
  uint32_t before = NONE, place = 1;
  for (uint32_t at = part_at(edits, of)->first; at != NONE; place++) {
    uint32_t next = part_at(edits, at)->next;
    if (at != but && is_meant(part_at(edits, at), step, place))
      *link_to(edits, of, before) = next;
    else
      before = at;
    at = next;
  }
}

static void set_whole(struct part *part, struct slice value) {
  part->value = value;
  part->kind = WHOLE;
  part->first = NONE;
}

static void hang_behind(struct json_edits *edits, uint32_t of, struct slice name, struct slice value) {
  uint32_t made = new_part(edits, name, value), last = NONE;
  if (made == NONE) return;
  for (uint32_t at = part_at(edits, of)->first; at != NONE; at = part_at(edits, at)->next) last = at;
  *link_to(edits, of, last) = made;
}

// What is there becomes a list, if it is none, with one more element.
static void append_to(struct json_edits *edits, uint32_t number, struct slice value) {
  static const struct slice null = {"null", 4};
  if (open_part(edits, number) == ARRAY) {
    hang_behind(edits, number, (struct slice){0}, value);
    return;
  }
  struct part old = *part_at(edits, number);
  uint32_t first = NONE;
  if (!slice_equal(old.value, null)) {
    first = new_part(edits, (struct slice){0}, old.value);
    if (first == NONE) return;
    part_at(edits, first)->kind = old.kind;
    part_at(edits, first)->first = old.first;
  }
  part_at(edits, number)->kind = ARRAY;
  part_at(edits, number)->first = first;
  hang_behind(edits, number, (struct slice){0}, value);
}

static void rename_part(struct json_edits *edits, uint32_t of, uint32_t number, struct slice name) {
  struct part *part = part_at(edits, number);
  struct slice inner = {name.data + 1, name.len - 2};
  part->name = name;
  for (uint32_t before = NONE, at = part_at(edits, of)->first; at != NONE; at = part_at(edits, at)->next) {
    struct part *other = part_at(edits, at);
    if (at != number && slice_equal((struct slice){other->name.data + 1, other->name.len - 2}, inner))
      *link_to(edits, of, before) = other->next;
    else
      before = at;
  }
}

// The last of a name counts, as for most readers; those before are gone when it is changed.
static void edit_member(struct json_edits *edits, const struct edit *edit, uint32_t of) {
  struct bytes step = edit->path[edit->count - 1];
  uint32_t found = NONE;
  for (uint32_t at = part_at(edits, of)->first; at != NONE; at = part_at(edits, at)->next)
    if (is_meant(part_at(edits, at), step, 0)) found = at;
  if (found == NONE) {
    struct slice name = edit->quoted[edit->count - 1];
    if (edit->step == JSON_ADD) hang_behind(edits, of, name, edit->value);
    if (edit->step != JSON_APPEND) return;
    hang_behind(edits, of, name, (struct slice){"[]", 2});
    if (!edits->failed) append_to(edits, edits->part_count - 1, edit->value);
    return;
  }
  remove_named(edits, of, step, found);
  if (edit->step == JSON_REPLACE) set_whole(part_at(edits, found), edit->value);
  if (edit->step == JSON_APPEND) append_to(edits, found, edit->value);
  if (edit->step == JSON_RENAME) rename_part(edits, of, found, edit->value);
}

static void edit_elements(struct json_edits *edits, const struct edit *edit, uint32_t of) {
  struct bytes step = edit->path[edit->count - 1];
  uint32_t place = 1;
  for (uint32_t at = part_at(edits, of)->first; at != NONE && !edits->failed; at = part_at(edits, at)->next, place++) {
    if (!is_meant(part_at(edits, at), step, place)) continue;
    if (edit->step == JSON_REPLACE) set_whole(part_at(edits, at), edit->value);
    if (edit->step == JSON_APPEND) append_to(edits, at, edit->value);
  }
}

static void edit_here(struct json_edits *edits, const struct edit *edit, uint32_t of) {
  struct bytes step = edit->path[edit->count - 1];
  if (edit->step == JSON_REMOVE)
    remove_named(edits, of, step, NONE);
  else if (step.data)
    edit_member(edits, edit, of);
  else
    edit_elements(edits, edit, of);
}

// Down the path; as deep as it is long.
static void walk(struct json_edits *edits, const struct edit *edit, uint32_t of, uint32_t depth) {
  struct bytes step = edit->path[depth];
  enum kind kind = open_part(edits, of);
  if (kind != (step.data ? OBJECT : ARRAY) || edits->failed) return;
  if (depth == edit->count - 1) {
    edit_here(edits, edit, of);
    return;
  }
  uint32_t place = 1;
  for (uint32_t at = part_at(edits, of)->first; at != NONE && !edits->failed; at = part_at(edits, at)->next, place++)
    if (is_meant(part_at(edits, at), step, place)) walk(edits, edit, at, depth + 1);
}

static bool is_allowed(const struct edit *edit, struct slice name) {
  for (uint32_t i = 0; i < edit->count; i++)
    if (is_named(name, edit->path[i])) return true;
  return false;
}

// Only the members with these names stay.
static void allow(struct json_edits *edits, const struct edit *edit) {
  if (open_part(edits, ROOT) != OBJECT) return;
  uint32_t before = NONE;
  for (uint32_t at = part_at(edits, ROOT)->first; at != NONE; at = part_at(edits, at)->next) {
    if (is_allowed(edit, part_at(edits, at)->name))
      before = at;
    else
      *link_to(edits, ROOT, before) = part_at(edits, at)->next;
  }
}

// ---- Writing ----

static void put(struct json_edits *edits, struct slice text) {
  if (edits->failed || text.len == 0) return;
  if (edits->room - edits->used < text.len) {
    size_t room = (edits->used + text.len) * 2;
    char *out = room <= UINT32_MAX ? realloc(edits->out, room) : NULL;
    if (!out) {
      edits->failed = true;
      return;
    }
    edits->out = out;
    edits->room = room;
  }
  memcpy(edits->out + edits->used, text.data, text.len);
  edits->used += text.len;
}

static void put_part(struct json_edits *edits, uint32_t number) {
  const struct part *part = part_at(edits, number);
  if (part->name.data) {
    put(edits, part->name);
    put(edits, SLICE(":"));
  }
  if (part->kind == WHOLE) {
    put(edits, part->value);
    return;
  }
  put(edits, part->kind == OBJECT ? SLICE("{") : SLICE("["));
  for (uint32_t at = part->first; at != NONE; at = part_at(edits, at)->next) {
    if (at != part->first) put(edits, SLICE(","));
    put_part(edits, at);
  }
  put(edits, part->kind == OBJECT ? SLICE("}") : SLICE("]"));
}

// One huge body must not keep its room for ever.
static void begin(struct json_edits *edits) {
  edits->failed = false;
  edits->used = edits->part_count = 0;
  if (edits->room > KEPT_BYTES) {
    free(edits->out);
    edits->out = NULL;
    edits->room = 0;
  }
  if (edits->part_room * sizeof *edits->parts > KEPT_BYTES) {
    free(edits->parts);
    edits->parts = NULL;
    edits->part_room = 0;
  }
}

int json_edits_run(struct json_edits *edits, struct slice text, struct slice *out) {
  begin(edits);
  const char *end = text.data + text.len, *p = past_space(text.data, end);
  assert(p < end);
  if (new_part(edits, (struct slice){0}, (struct slice){p, (uint32_t)(past_value(p, end) - p)}) == NONE)
    return ERROR_MEMORY;
  for (uint32_t i = 0; i < edits->count && !edits->failed; i++) {
    if (edits->edits[i].step == JSON_ALLOW)
      allow(edits, &edits->edits[i]);
    else
      walk(edits, &edits->edits[i], ROOT, 0);
  }
  put_part(edits, ROOT);
  *out = (struct slice){edits->out, (uint32_t)edits->used};
  return edits->failed ? ERROR_MEMORY : 0;
}
