// SPDX-License-Identifier: Apache-2.0
// One consistent set of configuration as the core runs it: services, routes, upstreams, certificates, settings.
// Built by Lua through the bridge beside the running one, then immutable (but for cursors). Counted: an exchange keeps
// the generation that it began with.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "bridge.h"
#include "cidr.h"
#include "error.h"
#include "target.h"

struct router;
struct stream_router;
struct tls_context;
struct worker;

// What a service's configuration says about TLS to it; texts in the generation's arena, NULL: not given.
struct client_tls {
  bool verify;
  int depth; // -1: not given
  const char *ca_pem, *certificate_pem, *key_pem;
};

// What a plugin wants otherwise for one request; texts in the exchange's arena.
struct tls_choice {
  int8_t verify;                         // -1: as the service says
  int16_t depth;                         // -1: as the service says
  const char *certificate_pem, *key_pem; // NULL: the service's
};

struct service {
  struct slice name, host, path;
  uint16_t port;
  bool tls, http2;
  uint32_t connect_timeout_ms, send_timeout_ms, read_timeout_ms, retries;
  struct upstream *upstream;
  struct client_tls client_tls;
  struct slice host_field; // Host sent when the client's is not preserved
  uint8_t proxy_protocol;  // version that a stream to it begins with, 0: none
  uint32_t heeds;          // of its host's endpoints (enum endpoint_reason), when that is no upstream; 0: not watched
};

struct route {
  struct slice name; // none: NULL
  uint32_t service;  // index, 0: none
  uint32_t phases;
  uint16_t https_redirect_status;
  bool strip_path, preserve_host, path_handling_v1;
  bool identity;   // services are asked to use no content coding
  bool grpc;       // takes gRPC only
  bool websocket;  // takes requests to become a WebSocket only
  bool of_streams; // in stream_router, not in router
  bool ended;      // its tunnels end: a newer generation has it no more, or not like this
};

// Numbers of `gateway.limits` and the like that an exchange obeys; their names are in generation.c.
struct limits {
  int64_t header_timeout_ms, body_timeout_ms, keepalive_timeout_ms, send_timeout_ms;
  int64_t upstream_idle_timeout_ms;
  int64_t max_body_bytes, max_connections, max_buffered_body_bytes;
  int64_t cache_bytes;          // that all stored responses may take; as of when the first one is looked for
  int64_t plugin_cpu_budget_ms; // -1: as the worker was started with
  uint32_t max_head_bytes, max_headers, keepalive_requests, pool_size;
  uint32_t websocket_on_reload, websocket_drain_ms;        // enum on_reload; what becomes of tunnels
  uint32_t websocket_client_most, websocket_upstream_most; // bytes of a message that the gateway reads
  uint32_t tells;                                          // enum tells: what a response says of the gateway
  uint32_t max_streams;                                    // of an HTTP/2 connection at once
};

// What becomes of an open tunnel whose route has changed.
enum on_reload { RELOAD_KEEP, RELOAD_DRAIN, RELOAD_CUT };

struct generation {
  struct worker *worker;
  struct generation *next; // in the worker's list of all that live
  int id;
  double revision;
  uint32_t refs;     // exchanges, plus one while it is the running one or being built
  bool live;         // immutable from then on
  uint32_t resolved; // services that have found their upstream, while compiling
  struct arena arena;
  struct service *services; // index 0 unused
  uint32_t service_count, service_room;
  struct route *routes; // index 0: the plan for no route
  uint32_t route_count, route_room;
  struct upstream **upstreams;
  uint32_t upstream_count, upstream_room;
  struct router *router;
  struct stream_router *stream_router; // NULL: no route of streams
  struct tls_context *tls;             // of the listeners
  uint32_t tunnels;                    // open ones, TCP streams not among them
  struct limits limits;
  struct cidr *trusted;
  uint32_t trusted_count, trusted_room;
  const char *access_log; // path; NULL: there is none
  bool access_log_json;
};

struct generation *generation_new(struct worker *worker, int id, double revision);
static inline struct generation *generation_retain(struct generation *generation) {
  generation->refs++;
  return generation;
}
// Drops one reference; the last tells the worker (worker_generation_end) and frees it.
void generation_release(struct generation *generation);

// The limits that hold before any generation is live.
void limits_init(struct limits *limits);

int generation_service(struct generation *generation, const struct service_conf *conf, struct error *error);
int generation_route(struct generation *generation, const struct route_conf *conf, struct error *error);
// What the route that was added last matches by; `kind` is an enum route_match.
int generation_route_match(struct generation *generation, uint32_t route, int kind, struct slice value,
                           struct error *error);
int generation_upstream(struct generation *generation, struct slice name, struct slice host_header);
struct upstream *generation_find_upstream(const struct generation *generation, struct slice name);
// The endpoints of the service's host are watched, for these reasons (enum endpoint_reason). 0, or ERROR_MEMORY.
int generation_watch_service(struct generation *generation, struct service *service, uint32_t heeds);
// A number of `gateway.limits` by its name. BRIDGE_NONE when the core has no use for it.
int generation_setting(struct generation *generation, struct slice name, double value);
// Where the access log goes. 0, or ERROR_MEMORY.
int generation_access_log(struct generation *generation, const char *path, bool json);
int generation_trust(struct generation *generation, struct slice cidr, struct error *error);
bool generation_trusts(const struct generation *generation, const struct sockaddr *address);
// The TLS context for a try: the service's own, or as a plugin chose (NULL: none did). `*key` tells which connections
// are alike. NULL: it cannot be made, or no memory.
struct tls_context *generation_client_tls(struct generation *generation, const struct service *service,
                                          const struct tls_choice *choice, struct slice name, uint64_t *key);
// Services find their upstreams, the router compiles; BRIDGE_AGAIN while there is more.
int generation_compile(struct generation *generation, double budget_us, struct error *error);
