// SPDX-License-Identifier: Apache-2.0
// Lists of items filed by host pattern and path prefix.
//
// Two tables with open addressing, at most half full. Path keys are known by 32 bits of their hash: two keys that agree
// in those share a list, which costs a check and never a wrong answer. A hash of n bytes is made of a state per eight
// bytes, kept for the whole path, and a mix of the rest: so all prefixes of a path cost one pass over it.
#include "route_index.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>

#include "error.h"

static uint64_t mix(uint64_t value) {
  value *= 0x9E3779B97F4A7C15u;
  return value ^ (value >> 32);
}

static uint64_t load_word(const char *data) {
  uint64_t word;
  memcpy(&word, data, sizeof word);
  return le64toh(word);
}

// `len` below 8 bytes, of which `readable` may be read.
static uint64_t load_rest(const char *data, uint32_t len, uint32_t readable) {
  if (len == 0) return 0;
  if (readable >= 8) return load_word(data) & ((1ull << (8 * len)) - 1);
  uint64_t word = 0;
  memcpy(&word, data, len);
  return le64toh(word);
}

static uint64_t finish(uint64_t state, uint64_t rest, uint32_t len, uint32_t salt) {
  return mix(mix(state ^ rest) ^ ((uint64_t)salt << 8) ^ len);
}

static uint64_t hash_text(struct slice text, uint32_t salt) {
  uint64_t state = 0;
  uint32_t at = 0;
  for (; at + 8 <= text.len; at += 8) state = mix(state ^ load_word(text.data + at));
  return finish(state, load_rest(text.data + at, text.len - at, text.len - at), text.len, salt);
}

// ---- Building ----

static uint32_t table_size(uint32_t entries) {
  uint32_t size = 8;
  while (size < 2 * (uint64_t)entries) size *= 2;
  return size;
}

int route_index_init(struct route_index *index, uint32_t items, uint32_t groups) {
  *index = (struct route_index){.item_count = 1, .item_room = items + 1, .group_room = groups + 1};
  index->host_mask = table_size(groups) - 1;
  index->key_mask = table_size(items) - 1;
  index->items = calloc(index->item_room, sizeof *index->items);
  index->groups = calloc(index->group_room, sizeof *index->groups);
  index->host_slots = calloc((size_t)index->host_mask + 1, sizeof *index->host_slots);
  index->key_slots = calloc((size_t)index->key_mask + 1, sizeof *index->key_slots);
  if (!index->items || !index->groups || !index->host_slots || !index->key_slots) {
    route_index_close(index);
    return ERROR_MEMORY;
  }
  index->group_count = 1; // INDEX_ANY_HOST
  return 0;
}

void route_index_close(struct route_index *index) {
  free(index->items);
  free(index->groups);
  free(index->host_slots);
  free(index->key_slots);
  *index = (struct route_index){0};
}

// The place of that pattern in the table, or a free one.
static uint32_t host_place(const struct route_index *index, enum host_kind kind, struct slice text) {
  uint32_t at = (uint32_t)hash_text(text, kind) & index->host_mask;
  for (;; at = (at + 1) & index->host_mask) {
    const struct host_group *group = &index->groups[index->host_slots[at]];
    if (index->host_slots[at] == 0 || (group->kind == kind && slice_equal(group->text, text))) return at;
  }
}

static void set_bit(uint64_t *bits, uint32_t bit) {
  bits[bit / 64] |= 1ull << (bit % 64);
}

uint32_t route_index_group(struct route_index *index, enum host_kind kind, struct slice text) {
  assert(text.len > 0 && text.len <= INDEX_HOST_BYTES);
  uint32_t at = host_place(index, kind, text);
  if (index->host_slots[at]) return index->host_slots[at];
  assert(index->group_count < index->group_room);
  index->host_slots[at] = index->group_count;
  index->groups[index->group_count] = (struct host_group){.text = text, .kind = kind};
  if (kind == HOST_SUFFIX) set_bit(index->suffix_lengths, text.len);
  if (kind == HOST_PREFIX) set_bit(index->prefix_lengths, text.len);
  return index->group_count++;
}

static uint32_t *list_of_key(struct route_index *index, uint32_t group, struct slice key) {
  uint64_t hash = hash_text(key, group);
  uint32_t tag = (uint32_t)(hash >> 32), at = (uint32_t)hash & index->key_mask;
  while (index->key_slots[at].item && index->key_slots[at].tag != tag) at = (at + 1) & index->key_mask;
  index->key_slots[at].tag = tag;
  return &index->key_slots[at].item;
}

void route_index_put(struct route_index *index, struct slice key, struct route_item item) {
  assert(index->item_count < index->item_room);
  struct host_group *group = &index->groups[item.group];
  if (key.len > INDEX_KEY_BYTES) key.len = INDEX_KEY_BYTES;
  if (key.len > index->longest_key) index->longest_key = key.len;
  if (key.len > 0) set_bit(group->key_lengths, key.len);
  uint32_t *list = key.len ? list_of_key(index, item.group, key) : &group->keyless;
  item.next = *list;
  *list = index->item_count;
  index->items[index->item_count++] = item;
}

// ---- Looking up ----

static uint32_t add_group(const struct route_index *index, enum host_kind kind, struct slice text, uint32_t *out) {
  uint32_t group = index->host_slots[host_place(index, kind, text)];
  if (group) *out = group;
  return group ? 1 : 0;
}

// A star stands for one character or more, so its text is shorter than the host.
static uint32_t add_wildcards(const struct route_index *index, enum host_kind kind, struct slice host,
                              const uint64_t lengths[4], uint32_t *out) {
  uint32_t count = 0;
  for (uint32_t part = 0; part < 4; part++) {
    for (uint64_t bits = lengths[part]; bits; bits &= bits - 1) {
      uint32_t len = part * 64 + (uint32_t)__builtin_ctzll(bits);
      if (len >= host.len) return count;
      const char *from = kind == HOST_SUFFIX ? host.data + host.len - len : host.data;
      count += add_group(index, kind, (struct slice){from, len}, out + count);
    }
  }
  return count;
}

uint32_t route_index_groups(const struct route_index *index, struct slice host, uint32_t out[INDEX_MAX_GROUPS]) {
  uint32_t count = 0;
  if (index->group_count > 1 && host.len > 0) {
    if (host.len <= INDEX_HOST_BYTES) count += add_group(index, HOST_EXACT, host, out);
    count += add_wildcards(index, HOST_SUFFIX, host, index->suffix_lengths, out + count);
    count += add_wildcards(index, HOST_PREFIX, host, index->prefix_lengths, out + count);
  }
  out[count++] = INDEX_ANY_HOST;
  return count;
}

void route_index_states(const struct route_index *index, struct slice path, struct key_states *states) {
  uint32_t len = path.len < index->longest_key ? path.len : index->longest_key;
  states->path = path;
  states->words[0] = 0;
  for (uint32_t n = 1; n <= len / 8; n++)
    states->words[n] = mix(states->words[n - 1] ^ load_word(path.data + 8 * (n - 1)));
}

uint32_t route_index_find(const struct route_index *index, uint32_t group, const struct key_states *states,
                          uint32_t len) {
  uint32_t whole = len / 8;
  uint64_t rest = load_rest(states->path.data + 8 * whole, len % 8, states->path.len - 8 * whole);
  uint64_t hash = finish(states->words[whole], rest, len, group);
  uint32_t tag = (uint32_t)(hash >> 32), at = (uint32_t)hash & index->key_mask;
  while (index->key_slots[at].item && index->key_slots[at].tag != tag) at = (at + 1) & index->key_mask;
  return index->key_slots[at].item;
}
