// SPDX-License-Identifier: Apache-2.0
// Compiled routes: which route takes a request, by Kong's rules (router flavour traditional_compatible), and the path
// that goes upstream. Filled while a generation is built, compiled in slices, immutable and never blocking afterwards.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "slice.h"

struct router;

enum { ROUTER_MAX_GROUPS = 32 };

// What a route is matched on besides the values given to router_add_match.
struct router_route {
  uint32_t protocols;     // PROTOCOL_* it allows; 0: all
  int32_t regex_priority; // among regex paths: higher first
  double created_at;      // earlier first, then the order of router_add
};

enum router_outcome {
  ROUTER_NOTHING, // no route: 404
  ROUTER_FOUND,
  ROUTER_NEEDS_TLS, // `route` takes the request, but only over TLS: 426, or a redirect by its https_redirect_status
  ROUTER_OVERRUN,   // a regex passed its limits: answer 500, for the next route may have other plugins
  ROUTER_AMBIGUOUS  // a lenient server would read the path as that of a better route, or climb out: answer 400
};

struct router_request {
  struct slice method;
  struct slice host; // lower case, without port
  struct slice path; // canonical
  struct slice sni;  // lower case; empty when the client sent none
  uint32_t port;     // of the host field, else the scheme's default
  bool tls;          // of the connection: without it snis are not asked for
  bool secure;       // as the client sees it: `tls`, or X-Forwarded-Proto: https from a trusted address
  // The value of the `nth` (from 0) field of that name, in any case; false past the last.
  bool (*header)(const void *context, struct slice name, uint32_t nth, struct slice *value);
  const void *context;
};

struct router_span {
  uint32_t from, to; // offsets into the path; both UINT32_MAX: the group took no part
};

// Only the first `group_count` groups are written.
struct router_result {
  uint32_t route;       // from 1; 0: none
  uint32_t path_len;    // bytes at the start of the path that the route's path matched; 0: it has none
  struct slice path;    // the route's path that matched (canonical, or "~" and a regex); empty: it has none
  struct slice host;    // the route's host that matched, without port; empty: it has none
  uint32_t regex;       // for router_capture_name; 0: no regex
  uint32_t group_count; // of the regex, without the whole match
  struct router_span groups[ROUTER_MAX_GROUPS]; // group 1 is at 0
};

// NULL without memory.
struct router *router_new(void);
void router_free(struct router *router);

// Index of the new route, from 1, or ERROR_MEMORY.
int router_add(struct router *router, const struct router_route *route);
// `kind` is an enum route_match. `route` must be the one added last: a router is filled route by route. 0, or
// ERROR_INVALID with the reason (a bad regex, a misplaced wildcard, a header value without a name), or ERROR_MEMORY.
int router_add_match(struct router *router, uint32_t route, int kind, const char *value, uint32_t len,
                     struct error *error);
// Compiles for about `budget_us`: BRIDGE_AGAIN while there is more, BRIDGE_OK at the end, BRIDGE_FULL without memory.
int router_compile(struct router *router, double budget_us);

// After ROUTER_NOTHING only the result's route (0) is written. Its slices live as long as the router.
enum router_outcome router_match(struct router *router, const struct router_request *request,
                                 struct router_result *result);

// Named groups of the regex that matched: `index` from 0, `group` from 1. False past the last.
bool router_capture_name(const struct router *router, uint32_t regex, uint32_t index, struct slice *name,
                         uint32_t *group);

// The path sent upstream: the service's path (empty: "/") with the request's, by strip_path and path_handling. Writes
// at most `room` bytes and gives the length, or ERROR_MEMORY. service_path.len + path.len + 1 bytes always suffice.
int router_upstream_path(struct slice service_path, struct slice path, uint32_t matched_len, bool strip, bool v1,
                         char *out, size_t room);

// ---- For `sluice explain` ----

enum router_verdict {
  VERDICT_UNSET, // the route does not ask
  VERDICT_MATCHED,
  VERDICT_FAILED
};

// How each attribute of one route fares against a request.
struct router_reasons {
  uint8_t methods, hosts, paths, headers, snis; // enum router_verdict
  bool tls_missing;                             // all else being well, it would answer ROUTER_NEEDS_TLS
  struct slice host, path;                      // of those that matched, the first in order of priority
  struct slice header;                          // the name of the first header that failed
  uint64_t priority;                            // higher is tried first; of the path that matched, else of the first
};

void router_explain(struct router *router, const struct router_request *request, uint32_t route,
                    struct router_reasons *reasons);

// A header look-up over an array: `context` is a struct router_fields.
struct router_fields {
  const struct slice *pairs; // name, value, name, value...
  uint32_t count;            // of pairs
};
bool router_field(const void *context, struct slice name, uint32_t nth, struct slice *value);
