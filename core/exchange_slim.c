// SPDX-License-Identifier: Apache-2.0
// An exchange that has become a tunnel, or whose answer is streamed without end, may last for days: what it will be asked for is moved out of its 64 KiB chunks and
// 4 KiB blocks into one block of just that size, and the rest goes.
//
// Two rounds over the same list: the first counts bytes, the second moves them.
#include <stddef.h>

#include "exchange_parts.h"
#include "phase.h"
#include "router.h"
#include "try.h"

enum { SLIM_LIMIT = 4 << 20, ALIGN = 16 };

struct packing {
  bool moving;
  size_t text_bytes, field_bytes; // counted
  char *text;                     // where the next text goes
  struct field *fields;
};

static void pack_text(struct packing *packing, struct slice *text) {
  if (!text->data) return;
  if (!packing->moving) {
    packing->text_bytes += text->len + 1;
    return;
  }
  if (text->len) memcpy(packing->text, text->data, text->len);
  packing->text[text->len] = 0;
  text->data = packing->text;
  packing->text += text->len + 1;
}

static void pack_headers(struct packing *packing, struct headers *headers) {
  if (!packing->moving) packing->field_bytes += headers->count * sizeof *headers->fields;
  if (packing->moving) {
    if (headers->count) memcpy(packing->fields, headers->fields, headers->count * sizeof *headers->fields);
    headers->fields = packing->fields;
    headers->room = headers->count;
    packing->fields += headers->count;
  }
  for (uint32_t i = 0; i < headers->count; i++) {
    struct field name_and_value = headers->fields[i];
    pack_text(packing, &name_and_value.name);
    pack_text(packing, &name_and_value.value);
    if (packing->moving) headers->fields[i] = name_and_value;
  }
}

static void pack_all(struct packing *packing, struct exchange *exchange) {
  struct slice *texts[] = {
      &exchange->tls_sni,      &exchange->request.method, &exchange->request.target, &exchange->scheme,
      &exchange->raw_path,     &exchange->path,           &exchange->query,          &exchange->authority,
      &exchange->host,         &exchange->service_method, &exchange->service_path,   &exchange->service_query,
      &exchange->service_host, &exchange->host_field,     &exchange->reason,         &exchange->error,
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) pack_text(packing, texts[i]);
  bool same = exchange->response.fields == exchange->service_response.fields;
  pack_headers(packing, &exchange->request.headers);
  pack_headers(packing, &exchange->service_response);
  if (!same)
    pack_headers(packing, &exchange->response);
  else if (packing->moving)
    exchange->response = exchange->service_response;
}

static void drop_headers(struct headers *headers) {
  headers_init(headers, headers->most);
}

// Fields that have done what they were for.
static void drop_handshake(struct headers *headers) {
  static const struct slice names[] = {SLICE("Connection"), SLICE("Upgrade"), SLICE("Sec-WebSocket-Key"),
                                       SLICE("Sec-WebSocket-Version"), SLICE("Sec-WebSocket-Extensions")};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) headers_remove(headers, names[i]);
}

// What nobody will ask for any more.
static void drop_unused(struct exchange *exchange) {
  drop_headers(&exchange->preset);
  drop_headers(&exchange->request.trailers);
  drop_headers(&exchange->service_message.headers);
  drop_headers(&exchange->service_message.trailers);
  drop_headers(&exchange->trailers);
  exchange->service_message.reason = (struct slice){NULL, 0};
  exchange->whole_body = exchange->whole_answer = exchange->message = (struct slice){NULL, 0};
  exchange->told_timeout = NULL;
  exchange_drop_copy(exchange);
  exchange->tls_choice = NULL;
  exchange->forwarded = NULL;
  buffer_clear(&exchange->replay);
  buffer_clear(&exchange->answer);
  if (exchange->request_body.bytes == 0) buffer_clear(&exchange->request_body);
  if ((exchange->phases & (1u << PHASE_LOG)) || exchange->generation->access_log) return;
  // Nobody is left to see them; plugins of frame phases see those of the request.
  drop_headers(&exchange->response);
  drop_headers(&exchange->service_response);
  if (exchange->match && exchange->match->group_count == 0 && !exchange->match->regex) exchange->match = NULL;
  if (exchange->phases)
    drop_handshake(&exchange->request.headers);
  else
    drop_headers(&exchange->request.headers);
}

static size_t match_bytes(const struct router_result *match) {
  return match ? offsetof(struct router_result, groups) + match->group_count * sizeof *match->groups : 0;
}

static size_t rounded(size_t bytes) {
  return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static void *move_to(struct arena *arena, const void *from, size_t size) {
  void *to = arena_alloc(arena, size);
  return to ? memcpy(to, from, size) : NULL;
}

static void release_chunk(struct chunk **chunk) {
  if (*chunk) chunk_release(*chunk);
  *chunk = NULL;
}

void exchange_slim(struct exchange *exchange) {
  if (exchange->caching) exchange_forget_cache(exchange);
  exchange->caching = NULL;
  drop_unused(exchange);
  struct packing packing = {0};
  pack_all(&packing, exchange);
  size_t match = match_bytes(exchange->match), try = exchange->try ? offsetof(struct try, addresses) : 0;
  size_t trace = exchange->trace ? sizeof *exchange->trace : 0;
  size_t need = rounded(packing.field_bytes) + rounded(packing.text_bytes) + rounded(match) + rounded(try) +
                rounded(trace) + arena_deferred_bytes(&exchange->arena);
  struct arena slim;
  if (arena_init_exact(&slim, SLIM_LIMIT, need) < 0) return; // it goes on as it is
  packing.moving = true;
  packing.fields = arena_alloc(&slim, packing.field_bytes);
  packing.text = arena_alloc(&slim, packing.text_bytes);
  pack_all(&packing, exchange);
  if (match) exchange->match = move_to(&slim, exchange->match, match);
  if (trace) exchange->trace = move_to(&slim, exchange->trace, trace);
  if (try) {
    exchange->try = move_to(&slim, exchange->try, try);
    exchange->try->address_count = 0;
    exchange->try->target = NULL;
    exchange->try->tls_name = NULL;
  }
  arena_replace(&exchange->arena, &slim);
  exchange->slim = true;
  release_chunk(&exchange->head_chunk);
  release_chunk(&exchange->response_chunk);
}

void exchange_rest(struct exchange *exchange) {
  if (!exchange->slim) exchange_slim(exchange);
  if (!(exchange->phases & (1u << PHASE_LOG))) phase_forget(exchange->worker, exchange_handle(exchange));
}
