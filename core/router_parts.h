// SPDX-License-Identifier: Apache-2.0
// What the files of the router share: its routes as they are kept. Nobody else includes this.
#pragma once
#include "arena.h"
#include "regex.h"
#include "route_index.h"
#include "router.h"

enum { MAX_METHODS = 64 }; // different ones in all routes: a bit each

static const uint32_t NONE = UINT32_MAX; // no place in a list

struct list {
  void *at;
  uint32_t count, room;
};

// What one route asks for. Its hosts, paths, snis and headers stand together in the router's lists.
struct rule {
  double created_at;
  uint64_t methods; // bits of the router's methods
  uint32_t protocols;
  int32_t regex_priority;
  uint32_t first_host, first_path, first_sni, first_header;
  uint32_t hosts, paths, snis, headers; // how many
  bool wildcard;                        // among the hosts
};

struct rule_host {
  struct slice pattern; // as configured, in lower case, without port
  struct slice text;    // without the star
  enum host_kind kind;
  uint32_t port; // 0: any
};

struct rule_path {
  struct slice text;   // "~" in front of a regex
  struct regex *regex; // NULL: a prefix
};

struct rule_header {
  struct slice name;
  uint32_t first_value, values;
};

struct rule_value {
  struct slice text;
  struct regex *regex; // NULL: equal but for case
};

enum stage { STAGE_FILL, STAGE_CHOOSE, STAGE_PLACE, STAGE_JIT, STAGE_DONE };

struct router {
  enum stage stage;
  uint32_t cursor;        // of the stage
  struct index_size size; // upper bounds, counted while choosing
  struct list rules, hosts, paths, snis, headers, values, choices;
  struct slice methods[MAX_METHODS];
  uint32_t method_count;
  struct regex_scratch *scratch; // NULL: no regex
  struct route_index index;
  struct arena arena; // texts
  char *loose;        // buffer for another reading of a path
  uint32_t loose_room;
};

static inline struct rule *rule_at(const struct router *router, uint32_t index) {
  return (struct rule *)router->rules.at + index;
}

static inline struct rule_host *host_at(const struct router *router, uint32_t index) {
  return (struct rule_host *)router->hosts.at + index;
}

static inline struct rule_path *path_at(const struct router *router, uint32_t index) {
  return (struct rule_path *)router->paths.at + index;
}

static inline struct slice sni_at(const struct router *router, uint32_t index) {
  return ((struct slice *)router->snis.at)[index];
}

static inline struct rule_header *header_at(const struct router *router, uint32_t index) {
  return (struct rule_header *)router->headers.at + index;
}

static inline struct rule_value *value_at(const struct router *router, uint32_t index) {
  return (struct rule_value *)router->values.at + index;
}

// The priority of one path (NONE: of the route without one).
uint64_t rule_priority(const struct router *router, const struct rule *rule, uint32_t path);
