// SPDX-License-Identifier: Apache-2.0
// Routes, filled in and compiled.
//
// A route with several paths is several choices, each with a priority of its own, for Kong compares path by path. The
// choice of the highest priority whose every attribute fits wins; nothing else decides. The priority is one number,
// from the left (Kong's layout):
//
//   | attributes asked for | only plain hosts | headers | regex path | regex_priority | length of the prefix |
//   | 3 bits               | 1                | 8       | 1          | 32             | 19                   |
//
// then the earlier created_at, then the order of the configuration. Protocols are no attribute: the winner alone says
// whether it wants TLS.
//
// Compiling takes the choices off a heap, the worst first, and files them in the index, so every list there is in order
// and each step is short, whatever the number of routes.
#include "router_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "uri.h"

enum {
  MAX_FILED_HOSTS = 256, // hosts times paths of one route; beyond that it is filed without its hosts
  MAX_PATH_BYTES = 64 * 1024,
  RULES_A_STEP = 16,
  ARENA_BYTES = 1 << 30
};

struct choice {
  uint64_t priority;
  double created_at;
  uint32_t rule, path; // NONE: a route without paths
};

// ---- Lists ----

static void *list_add(struct list *list, size_t size) {
  if (list->count == list->room) {
    uint32_t room = list->room ? 2 * list->room : 4;
    void *at = realloc(list->at, room * size);
    if (!at) return NULL;
    list->at = at;
    list->room = room;
  }
  return memset((char *)list->at + list->count++ * size, 0, size);
}

static inline struct choice *choice_at(const struct router *router, uint32_t index) {
  return (struct choice *)router->choices.at + index;
}

// ---- Filling ----

struct router *router_new(void) {
  struct router *router = calloc(1, sizeof *router);
  if (router) arena_init(&router->arena, ARENA_BYTES);
  return router;
}

void router_free(struct router *router) {
  if (!router) return;
  for (uint32_t i = 0; i < router->paths.count; i++) regex_free(path_at(router, i)->regex);
  for (uint32_t i = 0; i < router->values.count; i++) regex_free(value_at(router, i)->regex);
  regex_scratch_free(router->scratch);
  route_index_close(&router->index);
  struct list *lists[] = {&router->rules,   &router->hosts,  &router->paths,  &router->snis,
                          &router->headers, &router->values, &router->choices};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]->at);
  arena_close(&router->arena);
  free(router->loose);
  free(router);
}

int router_add(struct router *router, const struct router_route *route) {
  assert(router->stage == STAGE_FILL);
  struct rule *rule = list_add(&router->rules, sizeof *rule);
  if (!rule) return ERROR_MEMORY;
  *rule = (struct rule){.created_at = route->created_at,
                        .protocols = route->protocols,
                        .regex_priority = route->regex_priority,
                        .first_host = router->hosts.count,
                        .first_path = router->paths.count,
                        .first_sni = router->snis.count,
                        .first_header = router->headers.count};
  return (int)router->rules.count;
}

static int no_memory(struct error *error) {
  return error_set(error, ERROR_MEMORY, "no memory for a route");
}

static int keep_text(struct router *router, struct slice text, bool lower, struct slice *out, struct error *error) {
  char *copy = arena_alloc(&router->arena, text.len + 1);
  if (!copy) return no_memory(error);
  for (uint32_t i = 0; i < text.len; i++) copy[i] = lower ? ascii_lower(text.data[i]) : text.data[i];
  *out = (struct slice){copy, text.len};
  return 0;
}

static int keep_regex(struct router *router, struct slice pattern, unsigned flags, struct regex **out,
                      struct error *error) {
  if (!router->scratch && !(router->scratch = regex_scratch_new(ROUTER_MAX_GROUPS))) return no_memory(error);
  *out = regex_new(pattern, flags, error);
  return *out ? 0 : ERROR_INVALID;
}

static int add_method(struct router *router, struct rule *rule, struct slice value, struct error *error) {
  uint32_t bit = 0;
  while (bit < router->method_count && !slice_equal(router->methods[bit], value)) bit++;
  if (bit == MAX_METHODS) return error_set(error, ERROR_INVALID, "more than %d different methods", MAX_METHODS);
  if (bit == router->method_count) {
    if (keep_text(router, value, false, &router->methods[bit], error) < 0) return ERROR_MEMORY;
    router->method_count++;
  }
  rule->methods |= 1ull << bit;
  return 0;
}

// Cuts ":port" off a host, which may be an IPv6 address in brackets.
static uint32_t cut_port(struct slice *host) {
  uint32_t at = host->len, port = 0, scale = 1;
  while (at > 0 && host->data[at - 1] >= '0' && host->data[at - 1] <= '9' && scale <= 10000) {
    port += scale * (uint32_t)(host->data[--at] - '0');
    scale *= 10;
  }
  bool is_port = at > 1 && at < host->len && host->data[at - 1] == ':' && port > 0 && port <= 65535 &&
                 (host->data[0] == '[' ? host->data[at - 2] == ']' : !memchr(host->data, ':', at - 1));
  if (is_port) host->len = at - 1;
  return is_port ? port : 0;
}

static int cut_star(struct rule_host *host, struct error *error) {
  struct slice pattern = host->pattern;
  const char *star = memchr(pattern.data, '*', pattern.len);
  host->text = pattern;
  if (!star) return 0;
  bool first = star == pattern.data, last = star == pattern.data + pattern.len - 1;
  if ((!first && !last) || (first && memchr(star + 1, '*', pattern.len - 1)))
    return error_set(error, ERROR_INVALID, "invalid wildcard: one \"*\" at the start or at the end of the host");
  host->kind = first ? HOST_SUFFIX : HOST_PREFIX;
  host->text = (struct slice){pattern.data + (first ? 1 : 0), pattern.len - 1};
  return 0;
}

static int add_host(struct router *router, struct rule *rule, struct slice value, struct error *error) {
  struct rule_host host = {0};
  if (value.len == 0 || value.len > INDEX_HOST_BYTES)
    return error_set(error, ERROR_INVALID, "invalid length of a host");
  int failed = keep_text(router, value, true, &host.pattern, error);
  if (failed < 0) return failed;
  host.port = cut_port(&host.pattern);
  failed = cut_star(&host, error);
  if (failed < 0) return failed;
  struct rule_host *kept = list_add(&router->hosts, sizeof *kept);
  if (!kept) return no_memory(error);
  *kept = host;
  rule->hosts++;
  rule->wildcard |= host.kind != HOST_EXACT;
  return 0;
}

static int read_regex_path(struct router *router, struct slice value, struct rule_path *path, struct error *error) {
  int failed = keep_text(router, value, false, &path->text, error);
  if (failed < 0) return failed;
  struct slice pattern = {path->text.data + 1, path->text.len - 1};
  return keep_regex(router, pattern, REGEX_ANCHORED, &path->regex, error);
}

// A prefix is kept in the form in which requests' paths are compared with it.
static int read_prefix_path(struct router *router, struct slice value, struct rule_path *path, struct error *error) {
  if (value.len == 0 || value.data[0] != '/' || value.len > MAX_PATH_BYTES)
    return error_set(error, ERROR_INVALID, "a path begins with \"/\", or with \"~\" when it is a regex");
  if (uri_is_canonical(value)) return keep_text(router, value, false, &path->text, error);
  char *canonical = arena_alloc(&router->arena, 3 * (size_t)value.len);
  if (!canonical) return no_memory(error);
  path->text.data = canonical;
  return uri_normalise(value, canonical, 3 * value.len, &path->text.len, error);
}

static int add_path(struct router *router, struct rule *rule, struct slice value, struct error *error) {
  struct rule_path path = {0};
  bool is_regex = value.len > 0 && value.data[0] == '~';
  int failed = is_regex ? read_regex_path(router, value, &path, error) : read_prefix_path(router, value, &path, error);
  if (failed < 0) return failed;
  struct rule_path *kept = list_add(&router->paths, sizeof *kept);
  if (!kept) {
    regex_free(path.regex);
    return no_memory(error);
  }
  *kept = path;
  rule->paths++;
  return 0;
}

static int add_sni(struct router *router, struct rule *rule, struct slice value, struct error *error) {
  struct slice *kept = list_add(&router->snis, sizeof *kept);
  if (!kept) return no_memory(error);
  rule->snis++;
  // The dot at the end of a full name is no part of what clients send.
  if (value.len > 1 && value.data[value.len - 1] == '.') value.len--;
  return keep_text(router, value, true, kept, error);
}

static int add_header(struct router *router, struct rule *rule, struct slice name, struct error *error) {
  struct rule_header *header = list_add(&router->headers, sizeof *header);
  if (!header) return no_memory(error);
  header->first_value = router->values.count;
  rule->headers++;
  return keep_text(router, name, true, &header->name, error);
}

static int add_header_value(struct router *router, struct rule *rule, struct slice text, struct error *error) {
  if (rule->headers == 0) return error_set(error, ERROR_INVALID, "a header value without a name before it");
  struct rule_value *value = list_add(&router->values, sizeof *value);
  if (!value) return no_memory(error);
  header_at(router, router->headers.count - 1)->values++;
  if (text.len >= 2 && memcmp(text.data, "~*", 2) == 0)
    return keep_regex(router, (struct slice){text.data + 2, text.len - 2}, REGEX_CASELESS, &value->regex, error);
  return keep_text(router, text, true, &value->text, error);
}

int router_add_match(struct router *router, uint32_t route, int kind, const char *value, uint32_t len,
                     struct error *error) {
  assert(router->stage == STAGE_FILL);
  if (route == 0 || route != router->rules.count)
    return error_set(error, ERROR_INVALID, "route %u is not the one added last", route);
  struct rule *rule = rule_at(router, route - 1);
  struct slice text = {value, len};
  switch (kind) {
  case MATCH_METHOD: return add_method(router, rule, text, error);
  case MATCH_HOST: return add_host(router, rule, text, error);
  case MATCH_PATH: return add_path(router, rule, text, error);
  case MATCH_SNI: return add_sni(router, rule, text, error);
  case MATCH_HEADER_NAME: return add_header(router, rule, text, error);
  case MATCH_HEADER_VALUE: return add_header_value(router, rule, text, error);
  default: return error_set(error, ERROR_INVALID, "there is no kind of match %d", kind);
  }
}

// ---- Priorities ----

static uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

uint64_t rule_priority(const struct router *router, const struct rule *rule, uint32_t path) {
  uint32_t asked = (rule->methods ? 1u : 0) + (rule->hosts ? 1u : 0) + (rule->paths ? 1u : 0) +
                   (rule->headers ? 1u : 0) + (rule->snis ? 1u : 0);
  uint64_t priority = (uint64_t)asked << 61 | least(rule->headers, 255) << 52;
  if (rule->hosts > 0 && !rule->wildcard) priority |= 1ull << 60;
  if (path == NONE) return priority;
  if (!path_at(router, path)->regex) return priority | least(path_at(router, path)->text.len, (1u << 19) - 1);
  // Of signed numbers the order is kept by turning the sign bit over.
  return priority | 1ull << 51 | (uint64_t)((uint32_t)rule->regex_priority ^ 0x80000000u) << 19;
}

static bool is_worse(const struct choice *a, const struct choice *b) {
  if (a->priority != b->priority) return a->priority < b->priority;
  if (a->created_at < b->created_at || a->created_at > b->created_at) return a->created_at > b->created_at;
  return a->rule != b->rule ? a->rule > b->rule : a->path > b->path;
}

// The heap's first choice is the worst.
static int push_choice(struct router *router, struct choice choice) {
  if (!list_add(&router->choices, sizeof choice)) return ERROR_MEMORY;
  uint32_t at = router->choices.count - 1;
  for (; at > 0 && is_worse(&choice, choice_at(router, (at - 1) / 2)); at = (at - 1) / 2)
    *choice_at(router, at) = *choice_at(router, (at - 1) / 2);
  *choice_at(router, at) = choice;
  return 0;
}

static struct choice pop_worst(struct router *router) {
  struct choice worst = *choice_at(router, 0), last = *choice_at(router, --router->choices.count);
  uint32_t at = 0, count = router->choices.count;
  for (uint32_t child = 1; child < count; child = 2 * at + 1) {
    if (child + 1 < count && is_worse(choice_at(router, child + 1), choice_at(router, child))) child++;
    if (!is_worse(choice_at(router, child), &last)) break;
    *choice_at(router, at) = *choice_at(router, child);
    at = child;
  }
  *choice_at(router, at) = last;
  return worst;
}

// ---- Compiling ----

static bool is_filed_by_host(const struct rule *rule) {
  return rule->hosts > 0 && (uint64_t)rule->hosts * (rule->paths ? rule->paths : 1) <= MAX_FILED_HOSTS;
}

static struct slice index_key(const struct router *router, uint32_t path) {
  if (path == NONE) return (struct slice){NULL, 0};
  struct slice text = path_at(router, path)->text;
  if (!path_at(router, path)->regex) return text;
  struct slice pattern = {text.data + 1, text.len - 1};
  return (struct slice){pattern.data, regex_literal_prefix(pattern)};
}

static int choose(struct router *router, uint32_t index) {
  const struct rule *rule = rule_at(router, index);
  if (rule->protocols && !(rule->protocols & ~(uint32_t)PROTOCOLS_STREAM)) return 0; // another router's
  uint32_t choices = rule->paths ? rule->paths : 1, copies = is_filed_by_host(rule) ? rule->hosts : 1;
  for (uint32_t i = 0; i < choices; i++) {
    uint32_t path = rule->paths ? rule->first_path + i : NONE;
    struct choice choice = {rule_priority(router, rule, path), rule->created_at, index, path};
    if (push_choice(router, choice) < 0) return ERROR_MEMORY;
    router->size.items += copies;
    router->size.slots += copies * route_index_slots(index_key(router, path));
  }
  router->size.groups += copies;
  return 0;
}

static void place(struct router *router, struct choice choice) {
  const struct rule *rule = rule_at(router, choice.rule);
  struct slice key = index_key(router, choice.path);
  struct route_item item = {.rule = choice.rule, .path = choice.path, .host = NONE, .group = INDEX_ANY_HOST};
  if (!is_filed_by_host(rule)) {
    route_index_put(&router->index, key, item);
    return;
  }
  for (uint32_t i = rule->hosts; i-- > 0;) {
    item.host = rule->first_host + i;
    const struct rule_host *host = host_at(router, item.host);
    // A star alone is every host there is.
    item.group = host->text.len ? route_index_group(&router->index, host->kind, host->text) : INDEX_ANY_HOST;
    route_index_put(&router->index, key, item);
  }
}

static void enter_stage(struct router *router, enum stage stage) {
  assert(stage == router->stage + 1);
  router->stage = stage;
  router->cursor = 0;
}

static int step_choose(struct router *router) {
  for (int i = 0; i < RULES_A_STEP && router->cursor < router->rules.count; i++)
    if (choose(router, router->cursor++) < 0) return ERROR_MEMORY;
  if (router->cursor < router->rules.count) return 0;
  enter_stage(router, STAGE_PLACE);
  return route_index_init(&router->index, &router->size);
}

static void step_place(struct router *router) {
  for (int i = 0; i < RULES_A_STEP && router->choices.count > 0; i++) place(router, pop_worst(router));
  if (router->choices.count > 0) return;
  free(router->choices.at);
  router->choices = (struct list){0};
  enter_stage(router, STAGE_JIT);
}

// One regex a step, since each takes tens of microseconds; those of paths, then those of header values.
static void step_jit(struct router *router) {
  while (router->cursor < router->paths.count + router->values.count) {
    uint32_t at = router->cursor++;
    bool is_path = at < router->paths.count;
    struct regex *regex = is_path ? path_at(router, at)->regex : value_at(router, at - router->paths.count)->regex;
    if (!regex) continue;
    regex_jit(regex);
    return;
  }
  enter_stage(router, STAGE_DONE);
}

static int step(struct router *router) {
  switch (router->stage) {
  case STAGE_FILL: enter_stage(router, STAGE_CHOOSE); return 0;
  case STAGE_CHOOSE: return step_choose(router);
  case STAGE_PLACE: step_place(router); return 0;
  case STAGE_JIT: step_jit(router); return 0;
  case STAGE_DONE: return 0;
  }
  return 0;
}

static double now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

int router_compile(struct router *router, double budget_us) {
  double deadline = now_us() + budget_us;
  while (router->stage != STAGE_DONE) {
    if (step(router) < 0) return BRIDGE_FULL;
    if (router->stage != STAGE_DONE && now_us() >= deadline) return BRIDGE_AGAIN;
  }
  return BRIDGE_OK;
}
