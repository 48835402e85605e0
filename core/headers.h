// SPDX-License-Identifier: Apache-2.0
// Fields of a message in the order they came, found without regard to case (RFC 9110 5).
// A field is two slices into the read buffer or the arena; nothing is copied to look at it.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "slice.h"

// Fields that the gateway itself looks at. Known once, at parsing, so that no code compares names twice.
enum field_id {
  FIELD_OTHER,
  FIELD_CONNECTION,
  FIELD_CONTENT_LENGTH,
  FIELD_TRANSFER_ENCODING,
  FIELD_HOST,
  FIELD_UPGRADE,
  FIELD_KEEP_ALIVE,
  FIELD_PROXY_CONNECTION,
  FIELD_TE,
  FIELD_TRAILER,
  FIELD_EXPECT,
  FIELD_VIA,
  FIELD_DATE,
  FIELD_SERVER,
  FIELD_ACCEPT,
  FIELD_X_FORWARDED_FOR,
  FIELD_X_FORWARDED_PROTO,
  FIELD_X_FORWARDED_HOST,
  FIELD_X_FORWARDED_PORT,
  FIELD_X_FORWARDED_PATH,
  FIELD_X_FORWARDED_PREFIX,
  FIELD_X_REAL_IP,
  FIELD_CONTENT_TYPE,
  FIELD_ACCEPT_ENCODING,
  FIELD_ID_COUNT
};

struct field {
  struct slice name, value;
  uint32_t hash;            // of the lower-case name
  uint8_t id;               // enum field_id
  bool named_by_connection; // listed in Connection: goes no further (RFC 9110 7.6.1)
  bool replaces;            // set by a plugin before there was a response: fields of that name give way
};

// A name with what is known of it, so that it is found without being read again.
struct field_name {
  struct slice text;
  uint32_t hash;
  uint8_t id; // enum field_id
};

struct headers {
  struct field *fields;
  uint32_t count, room, most; // most: bound on count
  uint32_t present;           // bit mask of 1 << id that occur
};

void headers_init(struct headers *headers, uint32_t most);
uint32_t headers_hash(struct slice name);
enum field_id headers_id(struct slice name);
struct field_name headers_name(struct slice text);
// Appends a field whose bytes the caller keeps alive. 0, ERROR_INVALID past `most`, ERROR_MEMORY.
int headers_add(struct headers *headers, struct arena *arena, struct slice name, struct slice value);
// The same in place of all fields of that name, and in headers_merge too: it `replaces`.
int headers_set(struct headers *headers, struct arena *arena, struct slice name, struct slice value);
// Both for a name that is known.
int headers_add_name(struct headers *headers, struct arena *arena, const struct field_name *name, struct slice value);
int headers_set_name(struct headers *headers, struct arena *arena, const struct field_name *name, struct slice value);
// Adds the fields of `from` to `to`, those that replace in place of all of their name. As headers_add.
int headers_merge(struct headers *to, const struct headers *from, struct arena *arena);
// The `nth` (from 0) field of that name, or NULL.
struct field *headers_find(const struct headers *headers, struct slice name, uint32_t nth);
struct field *headers_find_name(const struct headers *headers, const struct field_name *name, uint32_t nth);
// The first field of that name, or NULL; `several`: it is not the only one.
struct field *headers_find_only(const struct headers *headers, const struct field_name *name, bool *several);
struct field *headers_find_id(const struct headers *headers, enum field_id id);
// Removes all fields of that name; the number removed.
uint32_t headers_remove(struct headers *headers, struct slice name);
// The same for every spelling that a service may take for that name: behind CGI and its kin (RFC 3875 4.1.18) all that
// is no letter and no digit looks the same.
uint32_t headers_remove_alike(struct headers *headers, struct slice name);
// Removes the fields whose names are spelt like one of `names`, in one pass; the number removed.
uint32_t headers_remove_all_alike(struct headers *headers, const struct slice *names, uint32_t count);
// All fields that a service may take for an identity which the gateway vouches for.
uint32_t headers_remove_identity(struct headers *headers);
// Makes the fields of `to` those of `from`, sharing the bytes.
int headers_copy(struct headers *to, const struct headers *from, struct arena *arena);
// Fit for a field: a token for a name; no CR, LF, NUL in a value (RFC 9110 5.1, 5.5).
bool headers_name_is_valid(struct slice name);
bool headers_value_is_valid(struct slice value);
// Whether a comma-separated list (RFC 9110 5.6.1) has `token`, without regard to case.
bool headers_list_has(struct slice list, struct slice token);
// The same over all fields with that id.
bool headers_any_list_has(const struct headers *headers, enum field_id id, struct slice token);

static inline bool headers_has(const struct headers *headers, enum field_id id) {
  return (headers->present >> id) & 1;
}
