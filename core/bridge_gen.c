// SPDX-License-Identifier: Apache-2.0
// How Lua builds a generation: thin bodies over generation.c, router.c, target.c and tls.c.
#include <stdlib.h>

#include "exchange.h"
#include "generation.h"
#include "stream.h"
#include "tls.h"
#include "worker.h"

static struct generation *find(struct worker *worker, int id) {
  struct generation *generation = worker->generations;
  while (generation && generation->id != id) generation = generation->next;
  return generation;
}

// A generation that is still being built; one that is live is no longer changed.
static struct generation *find_open(struct worker *worker, int id) {
  struct generation *generation = find(worker, id);
  if (generation && !generation->live) return generation;
  error_set(&worker->error, ERROR_INVALID, "generation %d is not being built", id);
  return NULL;
}

static struct slice text(const char *value) {
  return value ? slice_of(value) : (struct slice){NULL, 0};
}

int bridge_gen_new(struct worker *worker, double revision) {
  struct generation *generation = generation_new(worker, ++worker->next_generation, revision);
  if (!generation) return BRIDGE_FULL;
  generation->next = worker->generations;
  worker->generations = generation;
  return generation->id;
}

int bridge_gen_service(struct worker *worker, int gen, const struct service_conf *conf) {
  struct generation *generation = find_open(worker, gen);
  return generation ? generation_service(generation, conf, &worker->error) : BRIDGE_INVALID;
}

int bridge_gen_route(struct worker *worker, int gen, const struct route_conf *conf) {
  struct generation *generation = find_open(worker, gen);
  return generation ? generation_route(generation, conf, &worker->error) : BRIDGE_INVALID;
}

int bridge_gen_route_match(struct worker *worker, int gen, uint32_t route, int kind, const char *value, uint32_t len) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  int failed = generation_route_match(generation, route, kind, (struct slice){value, len}, &worker->error);
  return failed < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}

int bridge_gen_upstream(struct worker *worker, int gen, const char *name, const char *host_header) {
  struct generation *generation = find_open(worker, gen);
  return generation ? generation_upstream(generation, text(name), text(host_header)) : BRIDGE_INVALID;
}

static struct upstream *find_upstream(struct worker *worker, int gen, uint32_t index) {
  struct generation *generation = find(worker, gen);
  return generation && index > 0 && index <= generation->upstream_count ? generation->upstreams[index - 1] : NULL;
}

int bridge_gen_target(struct worker *worker, int gen, uint32_t upstream, const char *host, uint32_t port,
                      uint32_t weight) {
  struct upstream *found = find_open(worker, gen) ? find_upstream(worker, gen, upstream) : NULL;
  if (!found || port > 65535) return BRIDGE_INVALID;
  return upstream_add_target(found, &find(worker, gen)->arena, text(host), (uint16_t)port, weight);
}

int bridge_gen_schedule(struct worker *worker, int gen, uint32_t upstream, const uint32_t *targets, uint32_t count) {
  struct upstream *found = find_upstream(worker, gen, upstream);
  if (!found) return BRIDGE_INVALID;
  for (uint32_t i = 0; i < count; i++)
    if (targets[i] == 0 || targets[i] > found->target_count) return BRIDGE_INVALID;
  uint32_t *copy = arena_alloc(&find(worker, gen)->arena, (count + 1) * sizeof *copy);
  if (!copy) return BRIDGE_FULL;
  if (count) memcpy(copy, targets, count * sizeof *copy);
  found->schedule = copy;
  found->schedule_count = count;
  // Workers begin at different places, so that together they do not all start with the first target.
  found->cursor = count ? (uint32_t)(worker_random(worker) % count) : 0;
  return BRIDGE_OK;
}

// ---- Certificates ----------------------------------------------------------------------------------------------------

static bool needs_tls(const struct worker *worker) {
  for (uint32_t i = 0; i < worker->listener_count; i++)
    if (worker->listeners[i].tls) return true;
  return false;
}

static int make_default_certificate(struct worker *worker) {
  if (worker->self_certificate) return 0;
  worker->self_certificate = malloc(TLS_PEM_BYTES);
  worker->self_key = malloc(TLS_PEM_BYTES);
  if (!worker->self_certificate || !worker->self_key) return ERROR_MEMORY;
  return tls_self_signed(worker->self_certificate, worker->self_key, &worker->error);
}

int worker_open_tls(struct worker *worker, struct generation *generation) {
  if (generation->tls) return BRIDGE_OK;
  if (make_default_certificate(worker) < 0) return BRIDGE_FAILED;
  struct tls_server_options options = {
      .alpn = "h2,http/1.1",
      .tickets = worker->options.tickets,
      .default_certificate_pem = worker->self_certificate,
      .default_key_pem = worker->self_key,
      .hook = stream_on_certificate,
  };
  generation->tls = tls_server_context_new(&options, &worker->error);
  return generation->tls ? BRIDGE_OK : BRIDGE_FAILED;
}

int bridge_gen_certificate(struct worker *worker, int gen, const char *certificate_pem, const char *key_pem,
                           const char *certificate_alt_pem, const char *key_alt_pem) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  if (worker_open_tls(worker, generation) != BRIDGE_OK) return BRIDGE_FAILED;
  int index = tls_context_certificate(generation->tls, certificate_pem, key_pem, certificate_alt_pem, key_alt_pem,
                                      &worker->error);
  return index < 0 ? BRIDGE_INVALID : index;
}

int bridge_gen_sni(struct worker *worker, int gen, uint32_t certificate, const char *name) {
  struct generation *generation = find_open(worker, gen);
  if (!generation || !generation->tls) return BRIDGE_INVALID;
  return tls_context_sni(generation->tls, certificate, name, &worker->error) < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}

// ---- Settings, and going live ----------------------------------------------------------------------------------------

int bridge_gen_phases(struct worker *worker, int gen, uint32_t any) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  generation->routes[0].phases = any;
  return BRIDGE_OK;
}

int bridge_gen_setting(struct worker *worker, int gen, const char *name, uint32_t len, double value) {
  struct generation *generation = find_open(worker, gen);
  return generation ? generation_setting(generation, (struct slice){name, len}, value) : BRIDGE_INVALID;
}

int bridge_gen_access_log(struct worker *worker, int gen, const char *path, bool json) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  return generation_access_log(generation, path, json) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

int bridge_gen_trusted_ip(struct worker *worker, int gen, const char *cidr, uint32_t len) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  return generation_trust(generation, (struct slice){cidr, len}, &worker->error) < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}

int bridge_gen_compile(struct worker *worker, int gen, double budget_us) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  int result = generation_compile(generation, budget_us, &worker->error);
  return result < 0 ? BRIDGE_FAILED : result;
}

int bridge_gen_live(struct worker *worker, int gen) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  if (needs_tls(worker) && worker_open_tls(worker, generation) != BRIDGE_OK) return BRIDGE_FAILED;
  generation->live = true;
  worker_generation_live(worker, generation);
  generation_release(generation); // the reference of being built
  return BRIDGE_OK;
}

static struct generation *find_any(struct worker *worker, int gen) {
  struct generation *generation = worker->generations;
  while (generation && generation->id != gen) generation = generation->next;
  return generation;
}

uint32_t bridge_gen_tunnels(struct worker *worker, int gen) {
  struct generation *generation = find_any(worker, gen);
  return generation ? generation->tunnels : 0;
}

int bridge_gen_route_ended(struct worker *worker, int gen, uint32_t route) {
  struct generation *generation = find_any(worker, gen);
  if (!generation || route >= generation->route_count) return BRIDGE_INVALID;
  generation->routes[route].ended = true;
  return BRIDGE_OK;
}

int bridge_gen_end_tunnels(struct worker *worker, int gen) {
  struct generation *generation = find_any(worker, gen);
  if (!generation || !worker->generation) return BRIDGE_INVALID;
  const struct limits *limits = &worker->generation->limits;
  if (limits->websocket_on_reload == RELOAD_KEEP) return BRIDGE_OK;
  exchange_end_tunnels(worker, generation,
                       limits->websocket_on_reload == RELOAD_DRAIN ? limits->websocket_drain_ms : 0);
  return BRIDGE_OK;
}

int bridge_gen_drop(struct worker *worker, int gen) {
  struct generation *generation = find_open(worker, gen);
  if (!generation) return BRIDGE_INVALID;
  generation_release(generation);
  return BRIDGE_OK;
}
