// SPDX-License-Identifier: Apache-2.0
// Routes of streams: looked through one by one, once a connection. Each fitting route has a score, one number; from the
// left, Kong's: how many of snis, sources and destinations are asked for. What follows breaks ties:
//
//   | asked for | sni | source | destination | sni's length | destination: port, prefix | source: port, prefix |
//   | 2 bits    | 1   | 1      | 1           | 1 + 9        | 1 + 8                     | 1 + 8                |
//
// A plain name beats a wildcard, a longer wildcard a shorter one; an address with a port beats one without, a longer
// prefix a shorter one. Then the earlier created_at, then the order of the configuration.
#include "stream_router.h"

#include <stdbool.h>
#include <stdlib.h>

#include "arena.h"
#include "bridge.h"
#include "cidr.h"
#include "target.h"

enum { ARENA_BYTES = 1 << 30, NAME_MOST = 255 };

struct name {
  struct name *next;
  struct slice text; // without the star
  bool suffix, prefix;
};

struct endpoint {
  struct endpoint *next;
  struct cidr range; // bits 0: any address
  bool any_address;
  uint16_t port; // 0: any
};

struct entry {
  uint32_t route, protocols;
  double created_at;
  struct name *names;
  struct endpoint *sources, *destinations;
};

struct stream_router {
  struct arena arena;
  struct entry *entries;
  uint32_t count, room, protocols;
};

// ---- Filling ---------------------------------------------------------------------------------------------------------

struct stream_router *stream_router_new(void) {
  struct stream_router *router = calloc(1, sizeof *router);
  if (router) arena_init(&router->arena, ARENA_BYTES);
  return router;
}

void stream_router_free(struct stream_router *router) {
  if (!router) return;
  free(router->entries);
  arena_close(&router->arena);
  free(router);
}

int stream_router_add(struct stream_router *router, uint32_t route, uint32_t protocols, double created_at) {
  if (router->count == router->room) {
    uint32_t room = router->room ? router->room * 2 : 8;
    struct entry *entries = realloc(router->entries, room * sizeof *entries);
    if (!entries) return ERROR_MEMORY;
    router->entries = entries;
    router->room = room;
  }
  router->entries[router->count++] = (struct entry){.route = route, .protocols = protocols, .created_at = created_at};
  router->protocols |= protocols;
  return 0;
}

static int no_memory(struct error *error) {
  return error_set(error, ERROR_MEMORY, "no memory for a route");
}

static int add_name(struct stream_router *router, struct entry *entry, struct slice value, struct error *error) {
  if (value.len > 1 && value.data[value.len - 1] == '.') value.len--;
  if (value.len == 0 || value.len > NAME_MOST)
    return error_set(error, ERROR_INVALID, "invalid length of a server name");
  struct name *name = arena_alloc(&router->arena, sizeof *name);
  char *text = arena_alloc(&router->arena, value.len);
  if (!name || !text) return no_memory(error);
  for (uint32_t i = 0; i < value.len; i++) text[i] = ascii_lower(value.data[i]);
  *name = (struct name){.next = entry->names, .text = {text, value.len}};
  name->suffix = text[0] == '*';
  name->prefix = !name->suffix && text[value.len - 1] == '*';
  if (name->suffix || name->prefix) name->text.len--;
  if (name->suffix) name->text.data++;
  entry->names = name;
  return 0;
}

static int add_endpoint(struct stream_router *router, struct endpoint **list, struct slice value, struct error *error) {
  const char *space = memchr(value.data, ' ', value.len);
  struct endpoint *endpoint = arena_alloc(&router->arena, sizeof *endpoint);
  if (!endpoint) return no_memory(error);
  *endpoint = (struct endpoint){.next = *list, .any_address = true};
  struct slice address = {value.data, space ? (uint32_t)(space - value.data) : value.len};
  if (!slice_equal(address, SLICE("*"))) {
    endpoint->any_address = false;
    int failed = cidr_parse(address, &endpoint->range, error);
    if (failed < 0) return failed;
  }
  uint32_t port = 0;
  for (uint32_t i = address.len + 1; i < value.len; i++) {
    if (value.data[i] < '0' || value.data[i] > '9') port = UINT16_MAX + 1;
    if (port <= UINT16_MAX) port = port * 10 + (uint32_t)(value.data[i] - '0');
  }
  if (!space || port > UINT16_MAX) return error_set(error, ERROR_INVALID, "invalid port of an address");
  endpoint->port = (uint16_t)port;
  *list = endpoint;
  return 0;
}

int stream_router_add_match(struct stream_router *router, int kind, struct slice value, struct error *error) {
  if (router->count == 0) return error_set(error, ERROR_INVALID, "there is no route to add to");
  struct entry *entry = &router->entries[router->count - 1];
  switch (kind) {
  case MATCH_SNI: return add_name(router, entry, value, error);
  case MATCH_SOURCE: return add_endpoint(router, &entry->sources, value, error);
  case MATCH_DESTINATION: return add_endpoint(router, &entry->destinations, value, error);
  default: return error_set(error, ERROR_INVALID, "a route of streams asks for nothing of kind %d", kind);
  }
}

// ---- Finding ---------------------------------------------------------------------------------------------------------

// One end of a stream, ready to be compared.
struct place {
  bool known;
  uint8_t bytes[16];
  uint16_t port;
};

static struct place place_of(const struct sockaddr *address) {
  struct place place = {0};
  place.known = address && cidr_bytes(address, place.bytes);
  if (place.known) place.port = address_port(address);
  return place;
}

// How exactly a name fits: 0 not at all.
static uint64_t name_score(const struct name *name, struct slice sni) {
  struct slice text = name->text;
  if (!name->suffix && !name->prefix) return slice_equal(text, sni) ? 1u << 9 | text.len : 0;
  if (sni.len <= text.len) return 0;
  const char *from = name->suffix ? sni.data + sni.len - text.len : sni.data;
  return memcmp(from, text.data, text.len) == 0 ? text.len + 1 : 0;
}

static uint64_t best_name(const struct name *names, struct slice sni) {
  uint64_t best = 0;
  for (const struct name *name = names; name; name = name->next) {
    uint64_t score = name_score(name, sni);
    if (score > best) best = score;
  }
  return best;
}

// 0: none fits.
static uint64_t best_endpoint(const struct endpoint *endpoints, const struct place *place) {
  uint64_t best = 0;
  for (const struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next) {
    if (!place->known || (endpoint->port && endpoint->port != place->port)) continue;
    if (!endpoint->any_address && !cidr_has(&endpoint->range, place->bytes)) continue;
    uint64_t score = (endpoint->port ? 1u << 8 : 0) + (endpoint->any_address ? 0u : endpoint->range.bits + 1u);
    if (score == 0) score = 1;
    if (score > best) best = score;
  }
  return best;
}

struct search {
  const struct stream_request *request;
  struct place source, destination;
};

// 0: the route does not fit.
static uint64_t score_of(const struct search *search, const struct entry *entry) {
  if (!(entry->protocols & search->request->protocols)) return 0;
  uint64_t name = best_name(entry->names, search->request->sni);
  uint64_t source = best_endpoint(entry->sources, &search->source);
  uint64_t destination = best_endpoint(entry->destinations, &search->destination);
  if ((entry->names && !name) || (entry->sources && !source) || (entry->destinations && !destination)) return 0;
  uint64_t asked = (entry->names ? 1u : 0) + (entry->sources ? 1u : 0) + (entry->destinations ? 1u : 0);
  return asked << 40 | (uint64_t)(entry->names != NULL) << 39 | (uint64_t)(entry->sources != NULL) << 38 |
         (uint64_t)(entry->destinations != NULL) << 37 | name << 20 | destination << 11 | source << 2 | 1;
}

static struct search search_for(const struct stream_request *request) {
  return (struct search){request, place_of(request->source), place_of(request->destination)};
}

uint32_t stream_router_find(const struct stream_router *router, const struct stream_request *request,
                            uint32_t *protocol) {
  struct search search = search_for(request);
  const struct entry *best = NULL;
  uint64_t best_score = 0;
  for (uint32_t i = 0; i < router->count; i++) {
    const struct entry *entry = &router->entries[i];
    uint64_t score = score_of(&search, entry);
    if (score == 0 || score < best_score) continue;
    if (score == best_score && entry->created_at >= best->created_at) continue;
    best = entry;
    best_score = score;
  }
  if (best && protocol) *protocol = best->protocols & request->protocols;
  return best ? best->route : 0;
}

uint32_t stream_router_protocols(const struct stream_router *router) {
  return router->protocols;
}

uint64_t stream_router_score(const struct stream_router *router, const struct stream_request *request, uint32_t route) {
  struct search search = search_for(request);
  for (uint32_t i = 0; i < router->count; i++)
    if (router->entries[i].route == route) return score_of(&search, &router->entries[i]);
  return 0;
}
