// SPDX-License-Identifier: Apache-2.0
// Lists of items filed by host pattern and path prefix.
//
// Two tables with open addressing, which keep free places. Keys and nodes are known by 32 bits of their hash: two that
// agree in those share a slot, which costs a check and never a wrong answer. The hash of n bytes is made of a state per
// eight bytes and a mix of the rest, so all beginnings of a path cost one pass over it.
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

// Fewer than 8 bytes, and zeros.
static uint64_t load_rest(const char *data, uint32_t len) {
  uint64_t word = 0;
  if (len) memcpy(&word, data, len);
  return le64toh(word);
}

static uint64_t first_bytes(uint64_t word, uint32_t len) {
  return word & ((1ull << (8 * len)) - 1);
}

static uint64_t finish(uint64_t state, uint64_t rest, uint32_t len, uint32_t salt) {
  return mix(mix(state ^ rest) ^ ((uint64_t)salt << 8) ^ len);
}

static uint64_t hash_text(struct slice text, uint32_t salt) {
  uint64_t state = 0;
  uint32_t at = 0;
  for (; at + 8 <= text.len; at += 8) state = mix(state ^ load_word(text.data + at));
  return finish(state, load_rest(text.data + at, text.len - at), text.len, salt);
}

// ---- Building ----

// A power of two with a quarter to spare.
static uint32_t table_size(uint32_t entries) {
  uint64_t size = 8;
  while (size < entries + (uint64_t)entries / 4 + 1) size *= 2;
  return (uint32_t)size;
}

uint32_t route_index_slots(struct slice key) {
  return (key.len < INDEX_KEY_BYTES ? key.len : INDEX_KEY_BYTES) / 8 + 1;
}

int route_index_init(struct route_index *index, const struct index_size *size) {
  *index = (struct route_index){.item_count = 1, .item_room = size->items + 1, .group_room = size->groups + 1};
  index->host_mask = table_size(size->groups) - 1;
  index->slot_mask = table_size(size->slots) - 1;
  index->items = calloc(index->item_room, sizeof *index->items);
  index->groups = calloc(index->group_room, sizeof *index->groups);
  index->host_slots = calloc((size_t)index->host_mask + 1, sizeof *index->host_slots);
  index->slots = calloc((size_t)index->slot_mask + 1, sizeof *index->slots);
  if (!index->items || !index->groups || !index->host_slots || !index->slots) {
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
  free(index->slots);
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

// The slot of that hash, or a free one: one without an item and without anything below.
static struct index_slot *find_slot(const struct route_index *index, uint64_t hash) {
  uint32_t tag = (uint32_t)(hash >> 32), at = (uint32_t)hash & index->slot_mask;
  for (;; at = (at + 1) & index->slot_mask) {
    struct index_slot *slot = &index->slots[at];
    if (slot->tag == tag || (slot->item == 0 && slot->below == 0)) return slot;
  }
}

static struct index_slot *take_slot(struct route_index *index, uint64_t hash) {
  struct index_slot *slot = find_slot(index, hash);
  slot->tag = (uint32_t)(hash >> 32);
  return slot;
}

// The list of a key, with the nodes on the way to it.
static uint32_t *list_of_key(struct route_index *index, uint32_t group, struct slice key) {
  uint32_t *list = &index->groups[group].keyless, *below = &index->groups[group].below, at = 0;
  uint64_t state = 0;
  for (; at + 8 <= key.len; at += 8) {
    *below |= 1u << 8;
    state = mix(state ^ load_word(key.data + at));
    struct index_slot *node = take_slot(index, finish(state, 0, at + 8, group));
    list = &node->item;
    below = &node->below;
  }
  if (at == key.len) return list;
  *below |= 1u << (key.len - at);
  return &take_slot(index, finish(state, load_rest(key.data + at, key.len - at), key.len, group))->item;
}

void route_index_put(struct route_index *index, struct slice key, struct route_item item) {
  assert(index->item_count < index->item_room);
  if (key.len > INDEX_KEY_BYTES) key.len = INDEX_KEY_BYTES;
  uint32_t *list = list_of_key(index, item.group, key);
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

uint32_t route_index_lists(const struct route_index *index, uint32_t group, struct slice path,
                           uint32_t out[INDEX_MAX_LISTS]) {
  uint32_t count = 0, below = index->groups[group].below;
  uint64_t state = 0;
  if (index->groups[group].keyless) out[count++] = index->groups[group].keyless;
  for (uint32_t at = 0; below; at += 8) {
    uint32_t left = path.len - at;
    uint64_t word = left >= 8 ? load_word(path.data + at) : load_rest(path.data + at, left);
    // Keys that end within the next seven bytes, as far as the path goes.
    for (uint32_t bits = below & 0xfe & ((2u << (left < 8 ? left : 8)) - 1); bits; bits &= bits - 1) {
      uint32_t len = (uint32_t)__builtin_ctz(bits);
      uint32_t item = find_slot(index, finish(state, first_bytes(word, len), at + len, group))->item;
      if (item) out[count++] = item;
    }
    if (left < 8 || !(below & 1u << 8)) break;
    state = mix(state ^ word);
    const struct index_slot *node = find_slot(index, finish(state, 0, at + 8, group));
    if (node->item) out[count++] = node->item;
    below = node->below;
  }
  assert(count <= INDEX_MAX_LISTS);
  return count;
}
