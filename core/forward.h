// SPDX-License-Identifier: Apache-2.0
// What a gateway does to fields on their way (RFC 9110 7.6): hop-by-hop ones stop here, Via and X-Forwarded-* are added.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "headers.h"
#include "slice.h"

struct exchange;
struct h1_message;

// Marks the fields that Connection names: they go no further (RFC 9110 7.6.1).
void forward_mark_hop_by_hop(struct headers *headers);
// Whether a field belongs to one connection only, so that it is not forwarded.
bool forward_is_hop_by_hop(const struct field *field);

// The gateway's entry in Via: the version in which the message came, and its name (RFC 9110 7.6.3).
struct slice forward_via(const struct h1_message *message);

// Whether the service is asked to switch protocols as the client asked (RFC 9110 7.8).
bool forward_passes_upgrade(const struct exchange *exchange);

// The request head as the service gets it. 0, or ERROR_MEMORY when it is too large.
int forward_request_head(struct exchange *exchange, struct buffer *out);

struct forward_field {
  struct slice name, value;
};

struct forward_list {
  const struct forward_field *fields;
  uint32_t count;
};

// The same for HTTP/2: pseudo-fields, then fields, in the exchange's arena. Names may have upper case. 0, or
// ERROR_MEMORY.
int forward_request_list(struct exchange *exchange, struct slice scheme, struct forward_list *out);
// Whether the request that the service gets has content, perhaps none in the end.
bool forward_has_content(const struct exchange *exchange);

// Whether a field may stand behind the content: none of framing, routing, authentication or content (RFC 9110 6.5.1).
bool forward_is_trailer(const struct field *field);
// The last chunk of a chunked content, with its trailers. 0, or ERROR_MEMORY.
int forward_last_chunk(const struct headers *trailers, struct buffer *out);

// The request as the client made it, as far as trusted proxies in front of the gateway tell (trusted_ips).
struct slice forward_scheme(const struct exchange *exchange);
struct slice forward_host(const struct exchange *exchange);
uint16_t forward_port(const struct exchange *exchange);
struct slice forward_path(const struct exchange *exchange);
struct slice forward_prefix(const struct exchange *exchange);
struct slice forward_ip(const struct exchange *exchange);

// Method, path and query that go upstream; `path` may be made in the exchange's arena. 0, or ERROR_MEMORY.
struct slice forward_method(const struct exchange *exchange);
int forward_target(struct exchange *exchange, struct slice *path, struct slice *query, bool *has_query);
