// SPDX-License-Identifier: Apache-2.0
// Which route takes a TCP or TLS stream: by server name, and by addresses and ports of both ends. Kong's rules: of the
// routes that fit, the one that asks for more of snis, sources and destinations; then Sluice prefers the more exact one.
#pragma once
#include <stdint.h>

#include "error.h"
#include "slice.h"

struct sockaddr;
struct stream_router;

struct stream_request {
  uint32_t protocols;            // PROTOCOL_TCP, _TLS and _TLS_PASSTHROUGH that this stream may be carried as
  struct slice sni;              // lower case, without a dot at its end; empty: none
  const struct sockaddr *source; // NULL, or no IP address: fits no source that is asked for; so for the next
  const struct sockaddr *destination;
};

struct stream_router *stream_router_new(void); // NULL without memory
void stream_router_free(struct stream_router *router);

// `route` is the number that stream_router_find gives for it; created_at: earlier first, then the order of adding.
int stream_router_add(struct stream_router *router, uint32_t route, uint32_t protocols, double created_at);
// For the route that was added last. `kind`: MATCH_SNI ("a.x", "*.x", "a.*"), MATCH_SOURCE or MATCH_DESTINATION (address,
// range or "*", a space, a port or 0 for any). 0, or ERROR_INVALID and why, or ERROR_MEMORY.
int stream_router_add_match(struct stream_router *router, int kind, struct slice value, struct error *error);

// The route's number; 0: none fits. `protocol` (may be NULL) gets which of the request's protocols it was.
uint32_t stream_router_find(const struct stream_router *router, const struct stream_request *request,
                            uint32_t *protocol);
// PROTOCOL_* that any route has.
uint32_t stream_router_protocols(const struct stream_router *router);

// For `sluice explain`: whether that route fits, and what makes it better than another (higher is better).
uint64_t stream_router_score(const struct stream_router *router, const struct stream_request *request, uint32_t route);
