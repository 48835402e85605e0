// SPDX-License-Identifier: Apache-2.0
// Fields on their way to the service.
#include "forward.h"

#include <stdio.h>

#include "error.h"
#include "exchange.h"
#include "router.h"
#include "target.h"

#define BIT(id) (1u << FIELD_##id)

// Never forwarded as they came: of this connection only, or written anew below.
static const uint32_t own_fields =
    BIT(CONNECTION) | BIT(CONTENT_LENGTH) | BIT(TRANSFER_ENCODING) | BIT(HOST) | BIT(UPGRADE) | BIT(KEEP_ALIVE) |
    BIT(PROXY_CONNECTION) | BIT(TE) | BIT(EXPECT) | BIT(VIA) | BIT(X_FORWARDED_FOR) | BIT(X_FORWARDED_PROTO) |
    BIT(X_FORWARDED_HOST) | BIT(X_FORWARDED_PORT) | BIT(X_FORWARDED_PATH) | BIT(X_FORWARDED_PREFIX) | BIT(X_REAL_IP);
static const uint32_t hop_fields =
    BIT(CONNECTION) | BIT(TRANSFER_ENCODING) | BIT(UPGRADE) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) | BIT(TE);

void forward_mark_hop_by_hop(struct headers *headers) {
  if (!headers_has(headers, FIELD_CONNECTION)) return;
  for (uint32_t i = 0; i < headers->count; i++) {
    if (headers->fields[i].id != FIELD_CONNECTION) continue;
    for (uint32_t j = 0; j < headers->count; j++)
      if (headers_list_has(headers->fields[i].value, headers->fields[j].name))
        headers->fields[j].named_by_connection = true;
  }
}

struct slice forward_via(const struct h1_message *message) {
  if (message->major == 2) return SLICE("2 sluice");
  return message->minor ? SLICE("1.1 sluice") : SLICE("1.0 sluice");
}

bool forward_is_hop_by_hop(const struct field *field) {
  return field->named_by_connection || ((hop_fields >> field->id) & 1);
}

// ---- As the client made it -----------------------------------------------------------------------------------------

static struct slice trusted_field(const struct exchange *exchange, enum field_id id) {
  if (!exchange->peer.trusted) return (struct slice){NULL, 0};
  struct field *field = headers_find_id(&exchange->request.headers, id);
  return field ? field->value : (struct slice){NULL, 0};
}

struct slice forward_scheme(const struct exchange *exchange) {
  struct slice told = trusted_field(exchange, FIELD_X_FORWARDED_PROTO);
  return told.len ? told : exchange->scheme;
}

struct slice forward_host(const struct exchange *exchange) {
  struct slice told = trusted_field(exchange, FIELD_X_FORWARDED_HOST);
  return told.len ? told : exchange->host;
}

uint16_t forward_port(const struct exchange *exchange) {
  struct slice told = trusted_field(exchange, FIELD_X_FORWARDED_PORT);
  uint32_t port = 0;
  for (uint32_t i = 0; i < told.len && i < 5 && told.data[i] >= '0' && told.data[i] <= '9'; i++)
    port = port * 10 + (uint32_t)(told.data[i] - '0');
  if (port > 0 && port < 65536) return (uint16_t)port;
  return exchange->peer.local_port;
}

struct slice forward_path(const struct exchange *exchange) {
  struct slice told = trusted_field(exchange, FIELD_X_FORWARDED_PATH);
  return told.len ? told : exchange->raw_path;
}

struct slice forward_prefix(const struct exchange *exchange) {
  struct slice told = trusted_field(exchange, FIELD_X_FORWARDED_PREFIX);
  if (told.len) return told;
  if (!exchange->match || !exchange->route->strip_path || exchange->match->path_len == 0)
    return (struct slice){NULL, 0};
  return (struct slice){exchange->path.data, exchange->match->path_len};
}

// From the right, the first address that is not one of our own proxies.
struct slice forward_ip(const struct exchange *exchange) {
  struct slice own = slice_of(exchange->peer.client_ip);
  struct slice list = trusted_field(exchange, FIELD_X_FORWARDED_FOR);
  struct slice found = own;
  while (list.len > 0) {
    uint32_t from = list.len;
    while (from > 0 && list.data[from - 1] != ',') from--;
    struct slice one = {list.data + from, list.len - from};
    while (one.len && (one.data[0] == ' ' || one.data[0] == '\t')) one.data++, one.len--;
    while (one.len && (one.data[one.len - 1] == ' ' || one.data[one.len - 1] == '\t')) one.len--;
    struct address address;
    if (!address_parse(one, 0, &address)) return found;
    found = one;
    if (!generation_trusts(exchange->generation, &address.socket.base)) return found;
    list.len = from > 0 ? from - 1 : 0;
  }
  return found;
}

// ---- To the service ------------------------------------------------------------------------------------------------

struct slice forward_method(const struct exchange *exchange) {
  return exchange->service_method.data ? exchange->service_method : exchange->request.method;
}

static struct slice upstream_path(struct exchange *exchange) {
  struct slice base = exchange->service ? exchange->service->path : (struct slice){NULL, 0};
  bool strip = exchange->route->strip_path && exchange->match && exchange->match->path_len > 0;
  if (base.len == 0 && !strip) return exchange->path;
  size_t room = (size_t)base.len + exchange->path.len + 1;
  char *out = arena_alloc(&exchange->arena, room);
  if (!out) return (struct slice){NULL, 0};
  uint32_t matched = exchange->match ? exchange->match->path_len : 0;
  int len = router_upstream_path(base, exchange->path, matched, strip, exchange->route->path_handling_v1, out, room);
  return len < 0 ? (struct slice){NULL, 0} : (struct slice){out, (uint32_t)len};
}

int forward_target(struct exchange *exchange, struct slice *path, struct slice *query, bool *has_query) {
  *path = exchange->service_path.data ? exchange->service_path : upstream_path(exchange);
  if (exchange->match) exchange->service_path = *path; // before, there is no route to hold on to
  bool replaced = exchange->service_query.data != NULL;
  *query = replaced ? exchange->service_query : exchange->query;
  *has_query = replaced ? query->len > 0 : exchange->has_query;
  return path->data ? 0 : ERROR_MEMORY;
}

static struct slice host_for_service(const struct exchange *exchange) {
  if (exchange->host_field.len) return exchange->host_field;
  if (exchange->route->preserve_host && exchange->authority.len) return exchange->authority;
  if (exchange->upstream && exchange->upstream->host_header.len) return exchange->upstream->host_header;
  if (exchange->service_host.len) return exchange->service_host;
  return exchange->service ? exchange->service->host_field : exchange->upstream->name;
}

// A head being made: text, as HTTP/1.1 sends it, or with `list` its fields one by one. Room has been reserved for all
// of it: for the text, or for the values that a list does not find ready.
struct head {
  char *at;
  struct forward_field *list; // NULL: text
  uint32_t count;
};

static void put(struct head *head, struct slice text) {
  if (text.len) memcpy(head->at, text.data, text.len);
  head->at += text.len;
}

static void put_field(struct head *head, struct slice name, struct slice value) {
  if (head->list) {
    head->list[head->count++] = (struct forward_field){name, value};
    return;
  }
  put(head, name);
  put(head, SLICE(": "));
  put(head, value);
  put(head, SLICE("\r\n"));
}

// A field whose value is put piece by piece, between these two.
static char *begin_field(struct head *head, struct slice name) {
  if (!head->list) put(head, name);
  if (!head->list) put(head, SLICE(": "));
  return head->at;
}

static void end_field(struct head *head, struct slice name, const char *value) {
  if (head->list)
    put_field(head, name, (struct slice){value, (uint32_t)(head->at - value)});
  else
    put(head, SLICE("\r\n"));
}

static void put_number(struct head *head, struct slice name, uint64_t number) {
  char digits[DIGITS_MOST];
  const char *value = begin_field(head, name); // a list holds on to its values
  put(head, slice_of_number(number, digits));
  end_field(head, name, value);
}

// The values of all fields with that id in one list, ours at its end.
static void put_list(struct head *head, const struct exchange *exchange, enum field_id id, struct slice name,
                     struct slice own) {
  const char *value = begin_field(head, name);
  for (uint32_t i = 0; headers_has(&exchange->request.headers, id) && i < exchange->request.headers.count; i++) {
    const struct field *field = &exchange->request.headers.fields[i];
    if (field->id != id || field->named_by_connection || field->value.len == 0) continue;
    put(head, field->value);
    put(head, SLICE(", "));
  }
  put(head, own);
  end_field(head, name, value);
}

static const struct slice forwarded_names[FORWARDED_COUNT] = {
    [FORWARDED_FOR] = SLICE("X-Forwarded-For"),       [FORWARDED_REAL_IP] = SLICE("X-Real-IP"),
    [FORWARDED_PROTO] = SLICE("X-Forwarded-Proto"),   [FORWARDED_HOST] = SLICE("X-Forwarded-Host"),
    [FORWARDED_PORT] = SLICE("X-Forwarded-Port"),     [FORWARDED_PATH] = SLICE("X-Forwarded-Path"),
    [FORWARDED_PREFIX] = SLICE("X-Forwarded-Prefix"),
};

static void put_own_forwarded(struct head *head, const struct exchange *exchange, enum forwarded which) {
  struct slice name = forwarded_names[which], value = {NULL, 0};
  switch (which) {
  case FORWARDED_FOR: put_list(head, exchange, FIELD_X_FORWARDED_FOR, name, slice_of(exchange->peer.client_ip)); return;
  case FORWARDED_PORT: put_number(head, name, forward_port(exchange)); return;
  case FORWARDED_REAL_IP: value = forward_ip(exchange); break;
  case FORWARDED_PROTO: value = forward_scheme(exchange); break;
  case FORWARDED_HOST: value = forward_host(exchange); break;
  case FORWARDED_PATH: value = forward_path(exchange); break;
  case FORWARDED_PREFIX: value = forward_prefix(exchange); break;
  case FORWARDED_COUNT: break;
  }
  if (value.len || which == FORWARDED_REAL_IP || which == FORWARDED_PROTO || which == FORWARDED_PATH)
    put_field(head, name, value);
}

static void put_forwarded(struct head *head, const struct exchange *exchange) {
  const struct forwarded_choice *choice = exchange->forwarded;
  for (enum forwarded which = 0; which < FORWARDED_COUNT; which++) {
    if (!choice || !((choice->set >> which) & 1))
      put_own_forwarded(head, exchange, which);
    else if (choice->values[which].data)
      put_field(head, forwarded_names[which], choice->values[which]);
  }
}

bool forward_passes_upgrade(const struct exchange *exchange) {
  struct field *upgrade = headers_find_id(&exchange->request.headers, FIELD_UPGRADE);
  // An upgrade to cleartext HTTP/2 would take the request out of the gateway's sight.
  return exchange->request.upgrade && !is_http_1_0(exchange) && upgrade &&
         !headers_list_has(upgrade->value, SLICE("h2c"));
}

static void put_framing(struct head *head, const struct exchange *exchange) {
  if (exchange->body_replaced)
    put_number(head, SLICE("Content-Length"), exchange->request_body.bytes);
  else if (exchange->request.chunked)
    put(head, SLICE("Transfer-Encoding: chunked\r\n"));
  else if (exchange->request.content_length >= 0)
    put_number(head, SLICE("Content-Length"), (uint64_t)exchange->request.content_length);
  if (!forward_passes_upgrade(exchange)) return;
  put(head, SLICE("Connection: Upgrade\r\n"));
  put_field(head, SLICE("Upgrade"), headers_find_id(&exchange->request.headers, FIELD_UPGRADE)->value);
}

static void put_fields(struct head *head, const struct exchange *exchange) {
  uint32_t others = own_fields | (exchange->wants_identity ? BIT(ACCEPT_ENCODING) : 0);
  for (uint32_t i = 0; i < exchange->request.headers.count; i++) {
    const struct field *field = &exchange->request.headers.fields[i];
    if (field->named_by_connection || ((others >> field->id) & 1)) continue;
    put_field(head, field->name, field->value);
  }
  if (exchange->wants_identity) put_field(head, SLICE("Accept-Encoding"), SLICE("identity"));
  put_forwarded(head, exchange);
  put_list(head, exchange, FIELD_VIA, SLICE("Via"), forward_via(&exchange->request));
}

static size_t head_bound(const struct exchange *exchange, struct slice path, struct slice query) {
  size_t bound = 1024 + (size_t)forward_method(exchange).len + path.len + query.len + host_for_service(exchange).len +
                 exchange->raw_path.len + exchange->path.len + exchange->host.len;
  for (uint32_t i = 0; i < exchange->request.headers.count; i++)
    bound += exchange->request.headers.fields[i].name.len + exchange->request.headers.fields[i].value.len + 8;
  for (uint32_t i = 0; exchange->forwarded && i < FORWARDED_COUNT; i++) bound += exchange->forwarded->values[i].len;
  return bound;
}

int forward_request_head(struct exchange *exchange, struct buffer *out) {
  struct slice path, query;
  bool has_query;
  if (forward_target(exchange, &path, &query, &has_query) < 0) return ERROR_MEMORY;
  size_t bound = head_bound(exchange, path, query);
  char *start = bound <= CHUNK_BYTES ? buffer_reserve(out, bound) : NULL;
  if (!start) return ERROR_MEMORY;
  struct head head = {.at = start};
  put(&head, forward_method(exchange));
  put(&head, SLICE(" "));
  put(&head, path);
  if (has_query) put(&head, SLICE("?"));
  if (has_query) put(&head, query);
  put(&head, SLICE(" HTTP/1.1\r\n"));
  put_field(&head, SLICE("Host"), host_for_service(exchange));
  put_fields(&head, exchange);
  put_framing(&head, exchange);
  put(&head, SLICE("\r\n"));
  return buffer_commit(out, (size_t)(head.at - start));
}

// The text that a list needs besides what the exchange holds already: the target, numbers, and what joins others.
static size_t list_bound(const struct exchange *exchange, struct slice path, struct slice query) {
  size_t bound = 256 + (size_t)path.len + query.len;
  for (uint32_t i = 0; i < exchange->request.headers.count; i++) {
    const struct field *field = &exchange->request.headers.fields[i];
    if (field->id == FIELD_VIA || field->id == FIELD_X_FORWARDED_FOR) bound += field->value.len + 2;
  }
  return bound;
}

// The target's form, then the fields, in the order of RFC 9113 8.3: pseudo-fields first.
static void put_pseudo_fields(struct head *head, const struct exchange *exchange, struct slice scheme) {
  put_field(head, SLICE(":method"), forward_method(exchange));
  put_field(head, SLICE(":scheme"), scheme);
  put_field(head, SLICE(":authority"), host_for_service(exchange));
}

static void put_te(struct head *head, const struct exchange *exchange) {
  struct field *te = headers_find_id(&exchange->request.headers, FIELD_TE);
  if (exchange_is_grpc(exchange) || (te && headers_list_has(te->value, SLICE("trailers"))))
    put_field(head, SLICE("te"), SLICE("trailers"));
}

int forward_request_list(struct exchange *exchange, struct slice scheme, struct forward_list *out) {
  struct slice path, query;
  bool has_query;
  if (forward_target(exchange, &path, &query, &has_query) < 0) return ERROR_MEMORY;
  size_t most = exchange->request.headers.count + 16u;
  struct head head = {.at = arena_alloc(&exchange->arena, list_bound(exchange, path, query)),
                      .list = arena_alloc(&exchange->arena, most * sizeof *head.list)};
  if (!head.at || !head.list) return ERROR_MEMORY;
  put_pseudo_fields(&head, exchange, scheme);
  const char *target = begin_field(&head, SLICE(":path"));
  put(&head, path);
  if (has_query) put(&head, SLICE("?"));
  if (has_query) put(&head, query);
  end_field(&head, SLICE(":path"), target);
  put_fields(&head, exchange);
  put_te(&head, exchange);
  if (exchange->body_replaced)
    put_number(&head, SLICE("content-length"), exchange->request_body.bytes);
  else if (exchange->request.content_length >= 0)
    put_number(&head, SLICE("content-length"), (uint64_t)exchange->request.content_length);
  *out = (struct forward_list){head.list, head.count};
  return 0;
}

bool forward_has_content(const struct exchange *exchange) {
  if (exchange->body_replaced) return exchange->request_body.bytes > 0;
  return exchange->request.chunked || exchange->request.content_length > 0;
}

bool forward_is_trailer(const struct field *field) {
  static const struct slice forbidden[] = {
      SLICE("authorization"),
      SLICE("cache-control"),
      SLICE("content-encoding"),
      SLICE("content-range"),
      SLICE("cookie"),
      SLICE("location"),
      SLICE("max-forwards"),
      SLICE("proxy-authorization"),
      SLICE("range"),
      SLICE("set-cookie"),
      SLICE("www-authenticate"),
      SLICE("proxy-authenticate"),
      SLICE("content-language"),
  };
  if (field->id != FIELD_OTHER) return false;
  for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
    if (slice_equal_nocase(field->name, forbidden[i])) return false;
  return true;
}

int forward_last_chunk(const struct headers *trailers, struct buffer *out) {
  int failed = buffer_append(out, "0\r\n", 3);
  for (uint32_t i = 0; i < trailers->count; i++) {
    const struct field *field = &trailers->fields[i];
    if (!forward_is_trailer(field)) continue;
    failed |= buffer_append(out, field->name.data, field->name.len);
    failed |= buffer_append(out, ": ", 2);
    failed |= buffer_append(out, field->value.data, field->value.len);
    failed |= buffer_append(out, "\r\n", 2);
  }
  failed |= buffer_append(out, "\r\n", 2);
  return failed ? ERROR_MEMORY : 0;
}
