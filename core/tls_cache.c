// SPDX-License-Identifier: Apache-2.0
// TLS contexts of services and of Lua's sockets, by what was asked for.
#include "tls_cache.h"

#include <stdlib.h>
#include <string.h>

#include "tls.h"
#include "worker.h"

enum { TLS_ENTRIES_MOST = 256 };

static uint64_t mix(uint64_t hash, const char *data, size_t len) {
  for (size_t i = 0; i < len; i++) hash = (hash ^ (uint8_t)data[i]) * 1099511628211u;
  return (hash ^ 0xff) * 1099511628211u; // so that "a","b" and "ab","" differ
}

static uint64_t mix_text(uint64_t hash, const char *text) {
  return mix(hash, text ? text : "", text ? strlen(text) : 0);
}

static void forget_last_entry(struct worker *worker) {
  struct tls_entry **at = &worker->tls_entries;
  while ((*at)->next) at = &(*at)->next;
  tls_context_free((*at)->context);
  free(*at);
  *at = NULL;
  worker->tls_entry_count--;
}

static uint64_t options_hash(const struct tls_client_options *options) {
  uint64_t hash = mix(14695981039346656037u, (const char *)&options->verify_depth, sizeof options->verify_depth);
  hash = mix_text(mix_text(mix_text(hash, options->ca_pem), options->certificate_pem), options->key_pem);
  return mix_text(hash, options->alpn) ^ options->verify;
}

// The entry of that key, now the newest; NULL: none.
static struct tls_entry *find_entry(struct worker *worker, uint64_t key) {
  struct tls_entry **at = &worker->tls_entries;
  while (*at && (*at)->key != key) at = &(*at)->next;
  struct tls_entry *entry = *at;
  if (!entry) return NULL;
  *at = entry->next;
  entry->next = worker->tls_entries;
  worker->tls_entries = entry;
  return entry;
}

struct tls_context *tls_cache_get(struct worker *worker, const struct tls_client_options *options, uint64_t *hash) {
  uint64_t key = options_hash(options);
  *hash = key;
  struct tls_entry *entry = find_entry(worker, key);
  if (entry) return entry->context;
  entry = malloc(sizeof *entry);
  if (!entry) return NULL;
  *entry = (struct tls_entry){worker->tls_entries, key, tls_client_context_new(options, &worker->error)};
  if (!entry->context) {
    log_error(&worker->log, "no TLS context for a service", "cause", worker->error.text);
    free(entry);
    return NULL;
  }
  worker->tls_entries = entry;
  if (++worker->tls_entry_count > TLS_ENTRIES_MOST) forget_last_entry(worker);
  return entry->context;
}

void tls_cache_close(struct worker *worker) {
  while (worker->tls_entries) forget_last_entry(worker);
}
