// SPDX-License-Identifier: Apache-2.0
// Where the router looks for candidates: lists of items filed by host pattern and the start of the path, so that what a
// look-up costs does not grow with the number of routes. Used by router alone.
//
//   host ----> groups: of the exact name, of each wildcard around it, of any host
//   path ----> in a group, a list per key: the start of a path. Keys hang in a tree of eight bytes a step, whose nodes
//              say which lengths to look for below them: "/v1/orders" is found by "/v1/orde", then two bytes more
//   list ----> items, the best first
//
// The index only narrows: an item found is checked by the router against the request.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "slice.h"

enum {
  INDEX_ANY_HOST = 0, // the group of items that ask for no host
  INDEX_HOST_BYTES = 255,
  INDEX_MAX_GROUPS = 1 + 2 * INDEX_HOST_BYTES, // that one host can belong to
  INDEX_KEY_BYTES = 127,                       // longer ones are filed under their beginning
  INDEX_MAX_LISTS = INDEX_KEY_BYTES + 1        // that one path can find in a group
};

enum host_kind { HOST_EXACT, HOST_SUFFIX, HOST_PREFIX }; // x, *x, x*

// The greater its place in the array, the better an item is.
struct route_item {
  uint32_t next; // the next best of its list, 0: none
  uint32_t rule, path;
  uint32_t host; // of the router's hosts, UINT32_MAX: filed without one
  uint32_t group;
};

// Bit n of `below`: a key ends n bytes further on (1 to 7), or there is a node 8 bytes further on.
struct host_group {
  struct slice text; // what is left of the pattern without its star
  enum host_kind kind;
  uint32_t keyless; // first item of the list without a key
  uint32_t below;
};

struct index_slot {
  uint32_t tag;  // upper half of the hash of group and key
  uint32_t item; // first of the list, 0: no key ends here
  uint32_t below;
};

struct route_index {
  struct route_item *items; // 0 unused
  uint32_t item_count, item_room;
  struct host_group *groups;
  uint32_t group_count, group_room;
  uint32_t *host_slots; // groups by host; 0: free
  uint32_t host_mask;
  struct index_slot *slots;
  uint32_t slot_mask;
  uint64_t suffix_lengths[4], prefix_lengths[4]; // bit sets: of the wildcards' texts
};

struct index_size {
  uint32_t items, groups, slots;
};

// What one more item with that key may need besides itself: a slot for the key and for each node above it.
uint32_t route_index_slots(struct slice key);
// 0, or ERROR_MEMORY.
int route_index_init(struct route_index *index, const struct index_size *size);
void route_index_close(struct route_index *index);

// The group of a host pattern, made when there is none. At most INDEX_HOST_BYTES long, and no star alone.
uint32_t route_index_group(struct route_index *index, enum host_kind kind, struct slice text);
// Files one item; each is better than all filed before it.
void route_index_put(struct route_index *index, struct slice key, struct route_item item);

// The groups that a host belongs to, the one of any host last. Gives how many.
uint32_t route_index_groups(const struct route_index *index, struct slice host, uint32_t out[INDEX_MAX_GROUPS]);
// First items of the lists whose key begins the path, shortest key first. Now and then one of another key or group is
// among them. Gives how many.
uint32_t route_index_lists(const struct route_index *index, uint32_t group, struct slice path,
                           uint32_t out[INDEX_MAX_LISTS]);
