// SPDX-License-Identifier: Apache-2.0
// Ordered fields with case-blind look-up by a hash made at parsing.
#include "headers.h"

#include "error.h"

enum { COPY_SPARE = 16 }; // room in a copy, which is made to be changed

static const struct slice field_names[FIELD_ID_COUNT] = {
    [FIELD_CONNECTION] = SLICE("connection"),
    [FIELD_CONTENT_LENGTH] = SLICE("content-length"),
    [FIELD_TRANSFER_ENCODING] = SLICE("transfer-encoding"),
    [FIELD_HOST] = SLICE("host"),
    [FIELD_UPGRADE] = SLICE("upgrade"),
    [FIELD_KEEP_ALIVE] = SLICE("keep-alive"),
    [FIELD_PROXY_CONNECTION] = SLICE("proxy-connection"),
    [FIELD_TE] = SLICE("te"),
    [FIELD_TRAILER] = SLICE("trailer"),
    [FIELD_EXPECT] = SLICE("expect"),
    [FIELD_VIA] = SLICE("via"),
    [FIELD_DATE] = SLICE("date"),
    [FIELD_SERVER] = SLICE("server"),
    [FIELD_ACCEPT] = SLICE("accept"),
    [FIELD_X_FORWARDED_FOR] = SLICE("x-forwarded-for"),
    [FIELD_X_FORWARDED_PROTO] = SLICE("x-forwarded-proto"),
    [FIELD_X_FORWARDED_HOST] = SLICE("x-forwarded-host"),
    [FIELD_X_FORWARDED_PORT] = SLICE("x-forwarded-port"),
    [FIELD_X_FORWARDED_PATH] = SLICE("x-forwarded-path"),
    [FIELD_X_FORWARDED_PREFIX] = SLICE("x-forwarded-prefix"),
    [FIELD_X_REAL_IP] = SLICE("x-real-ip"),
    [FIELD_CONTENT_TYPE] = SLICE("content-type"),
    [FIELD_ACCEPT_ENCODING] = SLICE("accept-encoding"),
};

void headers_init(struct headers *headers, uint32_t most) {
  *headers = (struct headers){.most = most};
}

// Letters differ by case in one bit, which is set in all.
static uint64_t hash_word(uint64_t hash, uint64_t word) {
  hash = (hash ^ (word | 0x2020202020202020u)) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 32;
}

// Eight bytes at a time; the last eight may overlap those before. Each request and response has dozens of names.
uint32_t headers_hash(struct slice name) {
  uint64_t hash = name.len, word = 0;
  if (name.len < sizeof word) {
    for (uint32_t i = 0; i < name.len; i++) word = word << 8 | (uint8_t)name.data[i];
    return (uint32_t)hash_word(hash, word);
  }
  for (uint32_t i = 0; i < name.len - sizeof word; i += sizeof word) {
    memcpy(&word, name.data + i, sizeof word);
    hash = hash_word(hash, word);
  }
  memcpy(&word, name.data + name.len - sizeof word, sizeof word);
  return (uint32_t)hash_word(hash, word);
}

// Names of one length are few, so the length picks the candidates and one comparison decides.
enum field_id headers_id(struct slice name) {
  if (name.len < 2 || name.len > 18) return FIELD_OTHER;
  static const uint8_t by_length[19][4] = {
      [2] = {FIELD_TE},
      [3] = {FIELD_VIA},
      [4] = {FIELD_HOST, FIELD_DATE},
      [6] = {FIELD_ACCEPT, FIELD_SERVER, FIELD_EXPECT},
      [7] = {FIELD_UPGRADE, FIELD_TRAILER},
      [9] = {FIELD_X_REAL_IP},
      [10] = {FIELD_CONNECTION, FIELD_KEEP_ALIVE},
      [12] = {FIELD_CONTENT_TYPE},
      [14] = {FIELD_CONTENT_LENGTH},
      [15] = {FIELD_ACCEPT_ENCODING, FIELD_X_FORWARDED_FOR},
      [16] = {FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PORT, FIELD_X_FORWARDED_PATH, FIELD_PROXY_CONNECTION},
      [17] = {FIELD_TRANSFER_ENCODING, FIELD_X_FORWARDED_PROTO},
      [18] = {FIELD_X_FORWARDED_PREFIX},
  };
  const uint8_t *candidates = by_length[name.len];
  for (int i = 0; i < 4 && candidates[i]; i++)
    if (slice_equal_nocase(name, field_names[candidates[i]])) return candidates[i];
  return FIELD_OTHER;
}

static int headers_make_room(struct headers *headers, struct arena *arena) {
  if (headers->count < headers->room) return 0;
  uint32_t room = headers->room ? headers->room * 2 : 16;
  struct field *fields = arena_alloc(arena, room * sizeof *fields);
  if (!fields) return ERROR_MEMORY;
  if (headers->count) memcpy(fields, headers->fields, headers->count * sizeof *fields);
  headers->fields = fields;
  headers->room = room;
  return 0;
}

static int add_field(struct headers *headers, struct arena *arena, const struct field *field) {
  if (headers->count >= headers->most) return ERROR_INVALID;
  if (headers_make_room(headers, arena) < 0) return ERROR_MEMORY;
  headers->fields[headers->count++] = *field;
  headers->present |= 1u << field->id;
  return 0;
}

struct field_name headers_name(struct slice text) {
  return (struct field_name){.text = text, .hash = headers_hash(text), .id = (uint8_t)headers_id(text)};
}

int headers_add_name(struct headers *headers, struct arena *arena, const struct field_name *name, struct slice value) {
  struct field field = {.name = name->text, .value = value, .hash = name->hash, .id = name->id};
  return add_field(headers, arena, &field);
}

int headers_add(struct headers *headers, struct arena *arena, struct slice name, struct slice value) {
  struct field_name known = headers_name(name);
  return headers_add_name(headers, arena, &known, value);
}

struct field *headers_find_name(const struct headers *headers, const struct field_name *name, uint32_t nth) {
  for (uint32_t i = 0; i < headers->count; i++) {
    struct field *field = &headers->fields[i];
    if (field->hash != name->hash || !slice_equal_nocase(field->name, name->text)) continue;
    if (nth-- == 0) return field;
  }
  return NULL;
}

struct field *headers_find_only(const struct headers *headers, const struct field_name *name, bool *several) {
  struct field *first = NULL;
  *several = false;
  for (uint32_t i = 0; i < headers->count && !*several; i++) {
    struct field *field = &headers->fields[i];
    if (field->hash != name->hash || !slice_equal_nocase(field->name, name->text)) continue;
    if (first)
      *several = true;
    else
      first = field;
  }
  return first;
}

struct field *headers_find(const struct headers *headers, struct slice name, uint32_t nth) {
  struct field_name known = {.text = name, .hash = headers_hash(name)};
  return headers_find_name(headers, &known, nth);
}

struct field *headers_find_id(const struct headers *headers, enum field_id id) {
  if (!headers_has(headers, id)) return NULL;
  for (uint32_t i = 0; i < headers->count; i++)
    if (headers->fields[i].id == id) return &headers->fields[i];
  return NULL;
}

static bool is_same(const struct field *field, struct slice name, uint32_t hash) {
  return field->hash == hash && slice_equal_nocase(field->name, name);
}

static char plain(char c) {
  char lower = ascii_lower(c);
  return (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9') ? lower : '-';
}

static bool is_alike(const struct field *field, struct slice name, uint32_t hash) {
  (void)hash;
  if (field->name.len != name.len) return false;
  for (uint32_t i = 0; i < name.len; i++)
    if (plain(field->name.data[i]) != plain(name.data[i])) return false;
  return true;
}

static uint32_t remove_fields(struct headers *headers, struct slice name, uint32_t hash,
                              bool (*goes)(const struct field *, struct slice, uint32_t)) {
  uint32_t kept = 0, present = 0;
  for (uint32_t i = 0; i < headers->count; i++) {
    struct field *field = &headers->fields[i];
    if (goes(field, name, hash)) continue;
    present |= 1u << field->id;
    if (kept != i) headers->fields[kept] = *field;
    kept++;
  }
  uint32_t removed = headers->count - kept;
  headers->count = kept;
  headers->present = present;
  return removed;
}

uint32_t headers_remove(struct headers *headers, struct slice name) {
  return remove_fields(headers, name, headers_hash(name), is_same);
}

uint32_t headers_remove_alike(struct headers *headers, struct slice name) {
  return remove_fields(headers, name, 0, is_alike);
}

int headers_set_name(struct headers *headers, struct arena *arena, const struct field_name *name, struct slice value) {
  struct field field = {.name = name->text, .value = value, .hash = name->hash, .id = name->id, .replaces = true};
  remove_fields(headers, name->text, name->hash, is_same);
  return add_field(headers, arena, &field);
}

int headers_set(struct headers *headers, struct arena *arena, struct slice name, struct slice value) {
  struct field_name known = headers_name(name);
  return headers_set_name(headers, arena, &known, value);
}

uint32_t headers_remove_all_alike(struct headers *headers, const struct slice *names, uint32_t count) {
  uint32_t kept = 0, present = 0;
  for (uint32_t i = 0; i < headers->count; i++) {
    const struct field *field = &headers->fields[i];
    bool removed = false;
    // Most fields differ in their first letter already.
    for (uint32_t j = 0; j < count && !removed; j++)
      removed = plain(field->name.data[0]) == plain(names[j].data[0]) && is_alike(field, names[j], 0);
    if (removed) continue;
    present |= 1u << field->id;
    if (kept != i) headers->fields[kept] = *field;
    kept++;
  }
  uint32_t removed = headers->count - kept;
  headers->count = kept;
  headers->present = present;
  return removed;
}

uint32_t headers_remove_identity(struct headers *headers) {
  static const struct slice names[] = {
      SLICE("X-Consumer-ID"),          SLICE("X-Consumer-Custom-ID"),    SLICE("X-Consumer-Username"),
      SLICE("X-Consumer-Groups"),      SLICE("X-Credential-Identifier"), SLICE("X-Credential-Username"),
      SLICE("X-Anonymous-Consumer"),   SLICE("X-Authenticated-Groups"),  SLICE("X-Authenticated-Scope"),
      SLICE("X-Authenticated-UserID"),
  };
  return headers_remove_all_alike(headers, names, sizeof names / sizeof *names);
}

int headers_copy(struct headers *to, const struct headers *from, struct arena *arena) {
  struct headers copy = {.count = from->count, .most = from->most, .present = from->present};
  if (from->count) {
    copy.room = from->count + COPY_SPARE;
    copy.fields = arena_alloc(arena, copy.room * sizeof *copy.fields);
    if (!copy.fields) return ERROR_MEMORY;
    memcpy(copy.fields, from->fields, from->count * sizeof *copy.fields);
  }
  *to = copy;
  return 0;
}

int headers_merge(struct headers *to, const struct headers *from, struct arena *arena) {
  for (uint32_t i = 0; i < from->count; i++) {
    const struct field *field = &from->fields[i];
    if (field->replaces) remove_fields(to, field->name, field->hash, is_same);
    int result = add_field(to, arena, field);
    if (result < 0) return result;
  }
  return 0;
}

// tchar of RFC 9110 5.6.2, a bit for each byte.
static bool is_token_char(unsigned char c) {
  static const uint64_t token_chars[4] = {0x03ff6cfa00000000u, 0x57ffffffc7fffffeu};
  return token_chars[c >> 6] >> (c & 63) & 1;
}

bool headers_name_is_valid(struct slice name) {
  if (name.len == 0) return false;
  for (uint32_t i = 0; i < name.len; i++)
    if (!is_token_char((unsigned char)name.data[i])) return false;
  return true;
}

bool headers_value_is_valid(struct slice value) {
  for (uint32_t i = 0; i < value.len; i++) {
    unsigned char c = (unsigned char)value.data[i];
    if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
  }
  return true;
}

bool headers_list_has(struct slice list, struct slice token) {
  const char *p = list.data, *end = list.data + list.len;
  while (p < end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == ',')) p++;
    const char *start = p;
    while (p < end && *p != ',') p++;
    const char *stop = p;
    while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t')) stop--;
    if (slice_equal_nocase((struct slice){start, (uint32_t)(stop - start)}, token)) return true;
  }
  return false;
}

bool headers_any_list_has(const struct headers *headers, enum field_id id, struct slice token) {
  if (!headers_has(headers, id)) return false;
  for (uint32_t i = 0; i < headers->count; i++)
    if (headers->fields[i].id == id && headers_list_has(headers->fields[i].value, token)) return true;
  return false;
}
