// SPDX-License-Identifier: Apache-2.0
// Where requests can go: upstreams, their targets, and the addresses that DNS gives for each. Belongs to a generation.
// A service with a plain host has an upstream of one target, so nothing after this knows the difference.
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "arena.h"
#include "slice.h"

struct dns_query;
struct endpoint;

// An address as the kernel takes it.
struct address {
  union {
    struct sockaddr base;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
  } socket;
  uint32_t len;
};

enum { TARGET_ADDRESSES = 16 };

struct target {
  struct slice host; // name or address, zero-terminated
  uint16_t port;
  uint32_t weight;
  bool literal; // `host` is an address: no DNS
  struct address fixed;
  uint32_t turn; // round-robin over the addresses of a name
  // Of an upstream that is watched: its addresses as they were last known; see balance.h.
  struct bound *bound;
  uint32_t bound_count;
  uint64_t hash; // of host and port
};

struct upstream {
  struct slice name, host_header;
  struct target *targets;
  uint32_t target_count, target_room;
  uint32_t *schedule; // indexes from 1, walked round; NULL: Lua picks
  uint32_t schedule_count;
  uint32_t cursor;
  uint32_t index;      // in the generation, from 1; 0: the implicit upstream of a service
  struct watch *watch; // NULL: whether its targets are well does not matter, and nothing is looked up
};

// Parses "10.0.0.1" or "[::1]" or "::1". False when it is a name.
bool address_parse(struct slice host, uint16_t port, struct address *out);
// Parses "unix:/path". False when it is anything else.
bool address_unix(struct slice host, struct address *out);
// The address without port as text; `out` has room for INET6_ADDRSTRLEN bytes.
const char *address_text(const struct sockaddr *address, char *out);
uint16_t address_port(const struct sockaddr *address);

// The addresses of an answer, each with its own port where it has one (SRV), of the best priority among them. How many,
// at most TARGET_ADDRESSES.
uint32_t addresses_take(struct address *addresses, const struct dns_query *query, uint16_t port);
// Which of them to begin with: by the weights of their records (RFC 2782), else in turns.
uint32_t addresses_first(const struct dns_query *query, uint32_t count, uint32_t turn, uint64_t random);

int upstream_add_target(struct upstream *upstream, struct arena *arena, struct slice host, uint16_t port,
                        uint32_t weight);
// The next target of the schedule, or NULL when there is none with weight.
struct target *upstream_next(struct upstream *upstream);
