// SPDX-License-Identifier: Apache-2.0
// A generation: what Lua built through the bridge, held in one arena.
#include "generation.h"

#include <stdio.h>
#include <stdlib.h>

#include "balance.h"
#include "clock.h"
#include "router.h"
#include "stream_router.h"
#include "tls.h"
#include "tls_cache.h"
#include "worker.h"

enum { RESOLVE_STRIDE = 64 };

void limits_init(struct limits *limits) {
  *limits = (struct limits){
      .header_timeout_ms = 10000,
      .body_timeout_ms = 30000,
      .keepalive_timeout_ms = 60000,
      .send_timeout_ms = 30000,
      .upstream_idle_timeout_ms = 60000,
      .max_buffered_body_bytes = 8 << 20,
      .cache_bytes = 1 << 30,
      .plugin_cpu_budget_ms = -1,
      .max_head_bytes = 32768,
      .max_headers = 200,
      .max_streams = 100,
      .pool_size = 512,
      .websocket_drain_ms = 10000,
      .websocket_client_most = 1 << 20,
      .websocket_upstream_most = 16 << 20,
      .tells = TELL_SERVER | TELL_VIA,
  };
}

int generation_setting(struct generation *generation, struct slice name, double value) {
  struct limits *limits = &generation->limits;
  const struct {
    struct slice name;
    int64_t *wide;
    uint32_t *narrow;
  } table[] = {
      {SLICE("client_header_timeout"), &limits->header_timeout_ms, NULL},
      {SLICE("client_body_timeout"), &limits->body_timeout_ms, NULL},
      {SLICE("keepalive_timeout"), &limits->keepalive_timeout_ms, NULL},
      {SLICE("send_timeout"), &limits->send_timeout_ms, NULL},
      {SLICE("upstream_idle_timeout"), &limits->upstream_idle_timeout_ms, NULL},
      {SLICE("max_body_bytes"), &limits->max_body_bytes, NULL},
      {SLICE("max_buffered_body_bytes"), &limits->max_buffered_body_bytes, NULL},
      {SLICE("cache_bytes"), &limits->cache_bytes, NULL},
      {SLICE("max_connections"), &limits->max_connections, NULL},
      {SLICE("plugin_cpu_budget_ms"), &limits->plugin_cpu_budget_ms, NULL},
      {SLICE("max_head_bytes"), NULL, &limits->max_head_bytes},
      {SLICE("max_headers"), NULL, &limits->max_headers},
      {SLICE("max_streams"), NULL, &limits->max_streams},
      {SLICE("keepalive_requests"), NULL, &limits->keepalive_requests},
      {SLICE("upstream_pool_size"), NULL, &limits->pool_size},
      {SLICE("websocket_on_reload"), NULL, &limits->websocket_on_reload},
      {SLICE("websocket_drain_timeout"), NULL, &limits->websocket_drain_ms},
      {SLICE("websocket_client_max_payload"), NULL, &limits->websocket_client_most},
      {SLICE("websocket_upstream_max_payload"), NULL, &limits->websocket_upstream_most},
      {SLICE("headers"), NULL, &limits->tells},
  };
  if (!(value >= 0 && value < 9e15)) return BRIDGE_INVALID;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (!slice_equal(table[i].name, name)) continue;
    if (table[i].wide)
      *table[i].wide = (int64_t)value;
    else
      *table[i].narrow = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    // A head must fit a chunk with room to read on.
    if (limits->max_head_bytes > CHUNK_BYTES - 8192) limits->max_head_bytes = CHUNK_BYTES - 8192;
    return BRIDGE_OK;
  }
  return BRIDGE_NONE;
}

int generation_access_log(struct generation *generation, const char *path, bool json) {
  generation->access_log_json = json;
  generation->access_log = arena_copy(&generation->arena, path, strlen(path)).data;
  return generation->access_log ? 0 : ERROR_MEMORY;
}

struct generation *generation_new(struct worker *worker, int id, double revision) {
  struct generation *generation = calloc(1, sizeof *generation);
  if (!generation) return NULL;
  generation->worker = worker;
  generation->id = id;
  generation->revision = revision;
  generation->refs = 1;
  arena_init(&generation->arena, SIZE_MAX / 2);
  limits_init(&generation->limits);
  generation->router = router_new();
  struct route_conf none = {.phases = 0};
  struct error error;
  if (!generation->router || generation_route(generation, &none, &error) < 0) {
    if (generation->router) router_free(generation->router);
    arena_close(&generation->arena);
    free(generation);
    return NULL;
  }
  return generation;
}

void generation_release(struct generation *generation) {
  if (--generation->refs > 0) return;
  worker_generation_end(generation->worker, generation);
  router_free(generation->router);
  stream_router_free(generation->stream_router);
  if (generation->tls) tls_context_free(generation->tls);
  arena_close(&generation->arena);
  free(generation->services);
  free(generation->routes);
  free(generation->upstreams);
  free(generation->trusted);
  free(generation);
}

// ---- Entities --------------------------------------------------------------------------------------------------------

static struct slice keep(struct generation *generation, const char *text) {
  if (!text) return (struct slice){NULL, 0};
  return arena_copy(&generation->arena, text, strlen(text));
}

// Room for one more element of a heap array.
static int grow(void **array, uint32_t count, uint32_t *room, size_t size) {
  if (count < *room) return 0;
  uint32_t wanted = *room ? *room * 2 : 16;
  void *bigger = realloc(*array, wanted * size);
  if (!bigger) return ERROR_MEMORY;
  *array = bigger;
  *room = wanted;
  return 0;
}

static struct slice host_field(struct generation *generation, const struct service_conf *conf) {
  char text[320], port[16] = "";
  bool bare = strchr(conf->host, ':') && conf->host[0] != '['; // an IPv6 address, whose colons are not the port's
  if (conf->port != (conf->tls ? 443 : 80) && conf->port != 0) snprintf(port, sizeof port, ":%u", conf->port);
  int len = snprintf(text, sizeof text, bare ? "[%s]%s" : "%s%s", conf->host, port);
  return arena_copy(&generation->arena, text, len < (int)sizeof text ? (size_t)len : sizeof text - 1);
}

int generation_service(struct generation *generation, const struct service_conf *conf, struct error *error) {
  if (grow((void **)&generation->services, generation->service_count + 1, &generation->service_room,
           sizeof *generation->services) < 0)
    return error_set(error, ERROR_MEMORY, "no memory for services");
  if (!conf->host || !conf->host[0] || conf->port > 65535)
    return error_set(error, ERROR_INVALID, "service %s: host and port are needed", conf->name ? conf->name : "");
  uint32_t index = ++generation->service_count;
  generation->services[index] = (struct service){
      .name = keep(generation, conf->name),
      .host = keep(generation, conf->host),
      .path = keep(generation, conf->path),
      .port = (uint16_t)conf->port,
      .tls = conf->tls,
      .http2 = conf->http2,
      .connect_timeout_ms = conf->connect_timeout_ms,
      .send_timeout_ms = conf->send_timeout_ms,
      .read_timeout_ms = conf->read_timeout_ms,
      .retries = conf->retries,
      .host_field = host_field(generation, conf),
      .proxy_protocol = (uint8_t)conf->proxy_protocol,
      .client_tls = {.verify = conf->tls_verify,
                     .depth = conf->tls_verify_depth,
                     .ca_pem = keep(generation, conf->ca_pem).data,
                     .certificate_pem = keep(generation, conf->client_certificate_pem).data,
                     .key_pem = keep(generation, conf->client_key_pem).data},
  };
  return (int)index;
}

static int add_stream_route(struct generation *generation, uint32_t index, const struct route_conf *conf) {
  if (!generation->stream_router) generation->stream_router = stream_router_new();
  if (!generation->stream_router) return ERROR_MEMORY;
  return stream_router_add(generation->stream_router, index, conf->protocols, conf->created_at);
}

// The router counts all routes, so that its numbers are the generation's; those of streams match nothing there.
static int add_to_router(struct generation *generation, uint32_t index, const struct route_conf *conf) {
  struct router_route route = {
      .protocols = conf->protocols, .regex_priority = conf->regex_priority, .created_at = conf->created_at};
  if (router_add(generation->router, &route) != (int)index) return ERROR_MEMORY;
  return conf->protocols & PROTOCOLS_STREAM ? add_stream_route(generation, index, conf) : 0;
}

int generation_route(struct generation *generation, const struct route_conf *conf, struct error *error) {
  if (grow((void **)&generation->routes, generation->route_count, &generation->route_room, sizeof *generation->routes) <
      0)
    return error_set(error, ERROR_MEMORY, "no memory for routes");
  if (conf->service > generation->service_count)
    return error_set(error, ERROR_INVALID, "route %s: there is no service %u", conf->name ? conf->name : "",
                     conf->service);
  uint32_t index = generation->route_count++;
  if (index > 0 && !conf->inner && add_to_router(generation, index, conf) < 0)
    return error_set(error, ERROR_MEMORY, "no memory for routes");
  generation->routes[index] = (struct route){
      .name = keep(generation, conf->name),
      .service = conf->service,
      .phases = conf->phases,
      .https_redirect_status = (uint16_t)conf->https_redirect_status,
      .strip_path = conf->strip_path,
      .preserve_host = conf->preserve_host,
      .path_handling_v1 = conf->path_handling_v1,
      .identity = conf->identity,
      .grpc = (conf->protocols & (PROTOCOL_GRPC | PROTOCOL_GRPCS)) != 0,
      .websocket = conf->protocols && !(conf->protocols & ~(uint32_t)(PROTOCOL_WS | PROTOCOL_WSS)),
      .of_streams = (conf->protocols & PROTOCOLS_STREAM) != 0,
  };
  return (int)index;
}

int generation_route_match(struct generation *generation, uint32_t route, int kind, struct slice value,
                           struct error *error) {
  if (route > 0 && route + 1 == generation->route_count && generation->routes[route].of_streams)
    return stream_router_add_match(generation->stream_router, kind, value, error);
  return router_add_match(generation->router, route, kind, value.data, value.len, error);
}

static struct upstream *upstream_make(struct generation *generation) {
  struct upstream *upstream = arena_alloc(&generation->arena, sizeof *upstream);
  if (upstream) *upstream = (struct upstream){0};
  return upstream;
}

int generation_upstream(struct generation *generation, struct slice name, struct slice host_header) {
  struct upstream *upstream = upstream_make(generation);
  if (!upstream || grow((void **)&generation->upstreams, generation->upstream_count, &generation->upstream_room,
                        sizeof *generation->upstreams) < 0)
    return ERROR_MEMORY;
  generation->upstreams[generation->upstream_count++] = upstream;
  upstream->name = arena_copy(&generation->arena, name.data, name.len);
  if (host_header.len) upstream->host_header = arena_copy(&generation->arena, host_header.data, host_header.len);
  upstream->index = generation->upstream_count;
  return (int)upstream->index;
}

// Few: services look theirs up once, when the generation compiles; plugins that switch upstreams are rare.
struct upstream *generation_find_upstream(const struct generation *generation, struct slice name) {
  for (uint32_t i = 0; i < generation->upstream_count; i++)
    if (slice_equal_nocase(generation->upstreams[i]->name, name)) return generation->upstreams[i];
  return NULL;
}

// An upstream of the service's own, that its endpoints are known by: what else goes to the host shares them.
static int name_upstream(struct generation *generation, const struct service *service) {
  char name[ENDPOINT_UPSTREAM_ROOM];
  int len = snprintf(name, sizeof name, "%.*s:%u", (int)service->host.len, service->host.data, service->port);
  if (len >= (int)sizeof name) len = sizeof name - 1;
  service->upstream->name = arena_copy(&generation->arena, name, (uint32_t)len);
  return service->upstream->name.data ? 0 : ERROR_MEMORY;
}

int generation_watch_service(struct generation *generation, struct service *service, uint32_t heeds) {
  struct upstream_watch conf = {.heeds = heeds};
  service->heeds |= heeds;
  if (!service->upstream || heeds == 0) return 0; // not compiled yet
  if (service->upstream->name.len == 0 && name_upstream(generation, service) < 0) return ERROR_MEMORY;
  return balance_watch(generation, service->upstream, &conf);
}

static int service_resolve(struct generation *generation, struct service *service) {
  service->upstream = generation_find_upstream(generation, service->host);
  if (!service->upstream) {
    service->upstream = upstream_make(generation);
    if (!service->upstream ||
        upstream_add_target(service->upstream, &generation->arena, service->host, service->port, 100) < 0)
      return ERROR_MEMORY;
  }
  return generation_watch_service(generation, service, service->heeds);
}

int generation_compile(struct generation *generation, double budget_us, struct error *error) {
  struct clock clock;
  clock_init(&clock);
  int64_t until = clock.mono_us + (int64_t)budget_us;
  while (generation->resolved < generation->service_count) {
    if (service_resolve(generation, &generation->services[++generation->resolved]) < 0)
      return error_set(error, ERROR_MEMORY, "no memory for services");
    if (generation->resolved % RESOLVE_STRIDE) continue;
    clock_update(&clock);
    if (clock.mono_us >= until) return BRIDGE_AGAIN;
  }
  clock_update(&clock);
  if (clock.mono_us >= until) return BRIDGE_AGAIN;
  int result = router_compile(generation->router, (double)(until - clock.mono_us));
  if (result == BRIDGE_FULL) return error_set(error, ERROR_MEMORY, "no memory for the router");
  return result;
}

// ---- Trusted addresses -----------------------------------------------------------------------------------------------

int generation_trust(struct generation *generation, struct slice cidr, struct error *error) {
  struct cidr entry;
  int failed = cidr_parse(cidr, &entry, error);
  if (failed < 0) return failed;
  if (grow((void **)&generation->trusted, generation->trusted_count, &generation->trusted_room, sizeof entry) < 0)
    return error_set(error, ERROR_MEMORY, "no memory for trusted addresses");
  generation->trusted[generation->trusted_count++] = entry;
  return 0;
}

bool generation_trusts(const struct generation *generation, const struct sockaddr *address) {
  uint8_t bytes[16];
  if (generation->trusted_count == 0) return false;
  if (address->sa_family == AF_UNIX) return true; // whoever may open the socket's file
  if (!cidr_bytes(address, bytes)) return false;
  for (uint32_t i = 0; i < generation->trusted_count; i++)
    if (cidr_has(&generation->trusted[i], bytes)) return true;
  return false;
}

// ---- TLS to services -------------------------------------------------------------------------------------------------

struct tls_context *generation_client_tls(struct generation *generation, const struct service *service,
                                          const struct tls_choice *choice, struct slice name, uint64_t *key) {
  static const struct client_tls none = {.depth = -1};
  static const struct tls_choice no_choice = {.verify = -1, .depth = -1};
  const struct client_tls *tls = service ? &service->client_tls : &none;
  if (!choice) choice = &no_choice;
  bool own_pair = choice->certificate_pem != NULL;
  struct tls_client_options options = {
      .verify = choice->verify >= 0 ? choice->verify > 0 : tls->verify,
      .verify_depth = choice->depth >= 0 ? choice->depth : tls->depth,
      .ca_pem = tls->ca_pem,
      .certificate_pem = own_pair ? choice->certificate_pem : tls->certificate_pem,
      .key_pem = own_pair ? choice->key_pem : tls->key_pem,
      .alpn = service && service->http2 ? "h2" : NULL,
  };
  struct tls_context *context = tls_cache_get(generation->worker, &options, key);
  for (uint32_t i = 0; i < name.len; i++) *key = (*key ^ (uint8_t)name.data[i]) * 1099511628211u;
  *key |= 1; // 0 is plain
  return context;
}
