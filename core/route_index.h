// SPDX-License-Identifier: Apache-2.0
// Where the router looks for candidates: lists of items filed by host pattern and the start of the path, so that what a
// look-up costs does not grow with the number of routes. Used by router alone.
//
//   host ----> groups: the one of any host, of the exact name, of each wildcard around it
//   path ----> in each group: a list per key (a prefix of the path) and one without a key
//   list ----> items, the best first
//
// The index only narrows: an item found is checked by the router against the request.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "slice.h"

enum {
  INDEX_ANY_HOST = 0,     // the group of items that ask for no host
  INDEX_KEY_BYTES = 127,  // longer prefixes are filed under their beginning
  INDEX_KEY_WORDS = INDEX_KEY_BYTES / 8 + 1,
  INDEX_HOST_BYTES = 255,
  INDEX_MAX_GROUPS = 1 + 2 * INDEX_HOST_BYTES // that one host can belong to
};

enum host_kind { HOST_EXACT, HOST_SUFFIX, HOST_PREFIX }; // x, *x, x*

// The greater its place in the array, the better an item is.
struct route_item {
  uint32_t next; // the next best of its list, 0: none
  uint32_t rule, path;
  uint32_t host;  // of the router's hosts, UINT32_MAX: filed without one
  uint32_t group;
};

struct host_group {
  struct slice text; // what is left of the pattern without its star
  enum host_kind kind;
  uint32_t keyless;           // first item of the list without a key
  uint64_t key_lengths[2];    // bit n: there is a key of n bytes
};

struct index_slot {
  uint32_t tag;  // upper half of the key's hash
  uint32_t item; // first of the list, 0: free
};

struct route_index {
  struct route_item *items; // 0 unused
  uint32_t item_count, item_room;
  struct host_group *groups;
  uint32_t group_count, group_room;
  uint32_t *host_slots;  // groups by host; 0: free
  uint32_t host_mask;
  struct index_slot *key_slots;
  uint32_t key_mask;
  uint32_t longest_key;
  uint64_t suffix_lengths[4], prefix_lengths[4]; // of the wildcards' texts
};

// The hash of every beginning of a path is made of these: state of the first n words.
struct key_states {
  struct slice path;
  uint64_t words[INDEX_KEY_WORDS];
};

// 0, or ERROR_MEMORY: room for so many items and groups (with a group of any host).
int route_index_init(struct route_index *index, uint32_t items, uint32_t groups);
void route_index_close(struct route_index *index);

// The group of a host pattern, made when there is none. At most INDEX_HOST_BYTES long, and no star alone.
uint32_t route_index_group(struct route_index *index, enum host_kind kind, struct slice text);
// Files one item; each is better than all filed before it.
void route_index_put(struct route_index *index, struct slice key, struct route_item item);

// The groups that a host belongs to, the one of any host last. Gives how many.
uint32_t route_index_groups(const struct route_index *index, struct slice host, uint32_t out[INDEX_MAX_GROUPS]);
void route_index_states(const struct route_index *index, struct slice path, struct key_states *states);
// The first item of the list of the key made of `len` bytes of the path, 0: none. Now and then of another key too.
uint32_t route_index_find(const struct route_index *index, uint32_t group, const struct key_states *states,
                          uint32_t len);
