// SPDX-License-Identifier: Apache-2.0
// TLS contexts of services and of Lua's sockets, kept over generations: making one reads the system's certificates,
// which takes long, and it remembers the sessions of the servers it has met.
#pragma once
#include <stdint.h>

struct tls_client_options;
struct tls_context;
struct worker;

// The context for these options, the cache's own (use it before the loop turns). `*hash` tells equal ones apart from
// others. NULL: it cannot be made; worker->error says why.
struct tls_context *tls_cache_get(struct worker *worker, const struct tls_client_options *options, uint64_t *hash);
void tls_cache_close(struct worker *worker);
