// SPDX-License-Identifier: Apache-2.0
// One stream of a client's HTTP/2 connection: a request becomes an exchange, whose response becomes frames.
//
//   fields ──> head ──> exchange            exchange ──> head, out, trailers ──nghttp2 pulls──> frames
//
// Nothing is given to nghttp2 before it can be sent whole: a head waits for the first flush or for the response's end,
// so that a response without content is a single frame.
#include <stdlib.h>

#include "answer.h"
#include "crypto.h"
#include "error.h"
#include "exchange.h"
#include "forward.h"
#include "h2_server_parts.h"
#include "uri.h"
#include "worker.h"

enum {
  COPY_MOST = 4096,
  QUEUE_HIGH = 128 * 1024, // of one stream
  QUEUE_LOW = 32 * 1024,
  QUEUES_HIGH = 1024 * 1024, // of a connection: then a stream gets no more than it has
  OWN_FIELDS = 8             // added to a response
};

#define BIT(id) (1u << FIELD_##id)

static const struct stream_ops h2_ops;

static struct h2_stream *stream_of(const struct exchange *exchange) {
  return (struct h2_stream *)(void *)exchange->stream;
}

static int64_t now_of(const struct h2_stream *stream) {
  return stream->h2->worker->loop.clock.mono_us;
}

// ---- Life ------------------------------------------------------------------------------------------------------------

struct h2_stream *h2_stream_new(struct h2_server *h2, int32_t id) {
  struct h2_stream *stream = calloc(1, sizeof *stream);
  if (!stream) return NULL;
  struct stream *first = &h2->server->stream;
  first->peer.requests++;
  stream->stream =
      (struct stream){.worker = first->worker, .listener = first->listener, .conn = first->conn, .peer = first->peer};
  stream->h2 = h2;
  stream->id = id;
  stream->began_us = stream->content_us = stream->sent_us = h2->worker->loop.clock.mono_us;
  buffer_init(&stream->out, &h2->worker->chunks);
  buffer_init(&stream->held, &h2->worker->chunks);
  stream->exchange = exchange_new(h2->worker, &stream->stream, &h2_ops);
  if (!stream->exchange) {
    free(stream);
    return NULL;
  }
  struct h1_message *request = &stream->exchange->request;
  uint32_t max_headers = worker_limits(h2->worker)->max_headers;
  *request = (struct h1_message){.major = 2, .keep_alive = true, .content_length = -1};
  headers_init(&request->headers, max_headers);
  headers_init(&request->trailers, max_headers);
  stream->request_open = stream->want_body = true;
  stream->next = h2->streams;
  if (stream->next) stream->next->previous = stream;
  h2->streams = stream;
  h2->stream_count++;
  return stream;
}

static void forget_touched(struct h2_stream *stream) {
  struct h2_server *h2 = stream->h2;
  struct h2_stream **at = &h2->touched;
  while (*at && *at != stream) at = &(*at)->next_touched;
  if (!*at) return;
  *at = stream->next_touched;
  if (h2->touched_end == &stream->next_touched) h2->touched_end = at;
}

void h2_stream_free(struct h2_stream *stream) {
  struct h2_server *h2 = stream->h2;
  struct exchange *exchange = stream->exchange;
  stream->exchange = NULL;
  if (exchange) exchange_on_gone(exchange);
  if (stream->touched) forget_touched(stream);
  if (h2->current == stream) h2->current = NULL;
  h2->queued -= stream->out.bytes;
  buffer_clear(&stream->out);
  buffer_clear(&stream->held);
  free(stream->trailers.list);
  if (stream->previous)
    stream->previous->next = stream->next;
  else
    h2->streams = stream->next;
  if (stream->next) stream->next->previous = stream->previous;
  h2->stream_count--;
  free(stream);
}

static void reset(struct h2_stream *stream) {
  nghttp2_submit_rst_stream(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_INTERNAL_ERROR);
  h2_wake(stream->h2);
}

// ---- Requests --------------------------------------------------------------------------------------------------------

static void take_pseudo(struct h2_stream *stream, struct slice name, struct slice value) {
  struct h1_message *request = &stream->exchange->request;
  struct slice copy = arena_copy(&stream->exchange->arena, value.data, value.len);
  if (!copy.data)
    stream->too_large = true;
  else if (slice_equal(name, SLICE(":path")))
    request->target = copy;
  else if (slice_equal(name, SLICE(":method")))
    request->method = copy;
  else if (slice_equal(name, SLICE(":authority")))
    stream->authority = copy;
  else if (slice_equal(name, SLICE(":protocol")))
    stream->protocol = copy;
  else if (slice_equal(name, SLICE(":scheme")))
    stream->exchange->scheme = copy;
}

void h2_stream_on_field(struct h2_stream *stream, struct slice name, struct slice value) {
  struct exchange *exchange = stream->exchange;
  uint32_t max_bytes = worker_limits(stream->h2->worker)->max_head_bytes;
  stream->head_bytes += name.len + value.len + H2_FIELD_OVERHEAD;
  if (!exchange || stream->too_large) return;
  if (stream->head_bytes > max_bytes) {
    stream->too_large = true;
    stream->long_target = slice_equal(name, SLICE(":path"));
    return;
  }
  if (name.len && name.data[0] == ':') {
    take_pseudo(stream, name, value);
    return;
  }
  bool in_head = exchange->state == EXCHANGE_HEAD;
  struct headers *to = in_head ? &exchange->request.headers : &exchange->request.trailers;
  if (h2_take(to, &exchange->arena, (const uint8_t *)name.data, name.len, (const uint8_t *)value.data, value.len) < 0)
    stream->too_large = true;
}

// ":authority" and Host must name the same (RFC 9113 8.3.1). What follows knows Host only. False: refused.
static bool settle_host(struct h2_stream *stream) {
  struct exchange *exchange = stream->exchange;
  struct field *field = headers_find_id(&exchange->request.headers, FIELD_HOST);
  if (stream->authority.len == 0) return true;
  if (!field) {
    if (headers_add(&exchange->request.headers, &exchange->arena, SLICE("host"), stream->authority) == 0) return true;
    exchange_refuse(exchange, 431, "Request header fields are too large");
    return false;
  }
  if (slice_equal_nocase(field->value, stream->authority)) return true;
  struct uri_host one, other;
  struct error error;
  if (uri_parse_host(field->value, &one, &error) == 0 && uri_parse_host(stream->authority, &other, &error) == 0 &&
      slice_equal_nocase(one.name, other.name) && one.port == other.port) {
    field->value = stream->authority;
    return true;
  }
  exchange_refuse(exchange, 400, "Host and :authority differ");
  return false;
}

// Crumbs of a cookie are one field where no HTTP/2 is (RFC 9113 8.2.3). False: no memory.
static bool join_cookies(struct exchange *exchange) {
  struct headers *headers = &exchange->request.headers;
  struct field *first = headers_find(headers, SLICE("cookie"), 0);
  if (!first || !headers_find(headers, SLICE("cookie"), 1)) return true;
  size_t room = 0;
  for (uint32_t i = 0; i < headers->count; i++)
    if (headers->fields[i].hash == first->hash) room += headers->fields[i].value.len + 2;
  char *joined = arena_alloc(&exchange->arena, room);
  if (!joined) return false;
  uint32_t len = 0, kept = 0;
  for (uint32_t i = 0; i < headers->count; i++) {
    struct field *field = &headers->fields[i];
    bool crumb = field->hash == first->hash && slice_equal_nocase(field->name, SLICE("cookie"));
    if (crumb) {
      if (len) memcpy(joined + len, "; ", 2), len += 2;
      memcpy(joined + len, field->value.data, field->value.len);
      len += field->value.len;
    }
    if (!crumb || field == first) headers->fields[kept++] = *field;
  }
  headers->count = kept;
  first->value = (struct slice){joined, len};
  return true;
}

// A WebSocket over HTTP/2 (RFC 8441) goes on as what HTTP/1.1 has for it. False: refused.
static bool take_extended_connect(struct h2_stream *stream) {
  struct exchange *exchange = stream->exchange;
  struct headers *headers = &exchange->request.headers;
  if (!slice_equal_nocase(stream->protocol, SLICE("websocket"))) {
    exchange_refuse(exchange, 501, "The protocol asked for is not known");
    return false;
  }
  uint64_t random[2] = {worker_random(exchange->worker), worker_random(exchange->worker)};
  char key[32];
  int64_t len = crypto_encode(CRYPTO_BASE64, (struct slice){(const char *)random, sizeof random}, key);
  struct slice kept = arena_copy(&exchange->arena, key, (size_t)len);
  exchange->request.method = SLICE("GET");
  exchange->request.upgrade = true;
  stream->tunnel_asked = true;
  stream->want_body = false; // what comes is the other protocol's
  if (kept.data && headers_set(headers, &exchange->arena, SLICE("upgrade"), SLICE("websocket")) == 0 &&
      headers_set(headers, &exchange->arena, SLICE("sec-websocket-key"), kept) == 0)
    return true;
  exchange_refuse(exchange, 431, "Request header fields are too large");
  return false;
}

static int64_t content_length_of(const struct headers *headers) {
  struct field *field = headers_find_id(headers, FIELD_CONTENT_LENGTH);
  if (!field) return -1;
  int64_t length = 0; // nghttp2 has seen that it is a number
  for (uint32_t i = 0; i < field->value.len; i++) length = length * 10 + (field->value.data[i] - '0');
  return length;
}

static bool scheme_is_known(struct slice scheme) {
  return slice_equal_nocase(scheme, SLICE("http")) || slice_equal_nocase(scheme, SLICE("https"));
}

// What nghttp2 has not looked at. False: refused.
static bool check_head(struct h2_stream *stream) {
  struct exchange *exchange = stream->exchange;
  struct h1_message *request = &exchange->request;
  bool connect = slice_equal(request->method, SLICE("CONNECT")) && stream->protocol.len == 0;
  if (stream->long_target)
    exchange_refuse(exchange, 414, "Request target is too long");
  else if (stream->too_large)
    exchange_refuse(exchange, 431, "Request header fields are too large");
  else if (!connect && !scheme_is_known(exchange->scheme))
    exchange_refuse(exchange, 400, "the scheme is not known");
  else if (!join_cookies(exchange))
    exchange_refuse(exchange, 431, "Request header fields are too large");
  else
    return settle_host(stream) && (stream->protocol.len == 0 || take_extended_connect(stream));
  return false;
}

void h2_stream_on_head(struct h2_stream *stream, bool last) {
  stream->exchange->request_bytes = stream->h2->block_bytes;
  stream->request_open = !last;
  stream->waits = true;
  h2_touch(stream);
}

void h2_stream_begin(struct h2_stream *stream) {
  struct exchange *exchange = stream->exchange;
  bool last = !stream->request_open;
  if (!stream->waits) return;
  stream->waits = false;
  struct h1_message *request = &exchange->request;
  if (!request->target.data) request->target = stream->authority; // CONNECT
  if (!check_head(stream)) return;
  if (!stream->tunnel_asked) {
    request->content_length = content_length_of(&request->headers);
    request->chunked = !last && request->content_length < 0;
  }
  exchange_on_head(exchange);
  if (stream->exchange && (last || stream->tunnel_asked)) exchange_on_request_end(exchange);
}

void h2_stream_on_content(struct h2_stream *stream, struct chunk *chunk, struct slice piece) {
  stream->unused += piece.len;
  stream->content_us = now_of(stream);
  h2_touch(stream);
  h2_stream_begin(stream);
  if (!stream->exchange) return;
  if (!stream->tunnel_asked || stream->released)
    exchange_on_body(stream->exchange, chunk, piece);
  else if (buffer_append_piece(&stream->held, chunk, piece.data, piece.len) < 0)
    reset(stream);
}

void h2_stream_on_request_end(struct h2_stream *stream) {
  h2_stream_begin(stream);
  stream->request_open = false;
  if (!stream->exchange) return;
  if (stream->too_large)
    exchange_on_bad_body(stream->exchange);
  else if (!stream->tunnel_asked || stream->released)
    exchange_on_request_end(stream->exchange);
}

// What came before there was a tunnel.
static void release_held(struct h2_stream *stream) {
  if (!stream->tunnel || stream->released) return;
  stream->released = true;
  while (stream->held.count > 0 && stream->exchange) {
    struct segment first = stream->held.segments[stream->held.head];
    exchange_on_body(stream->exchange, first.chunk, (struct slice){first.data, first.len});
    buffer_consume(&stream->held, first.len);
  }
  if (stream->exchange && !stream->request_open) exchange_on_request_end(stream->exchange);
}

// Content that has gone on, or will be kept whole by intent, makes room in the windows for more.
static void give_back(struct h2_stream *stream) {
  const struct exchange *exchange = stream->exchange;
  if (exchange && !stream->want_body) return;
  uint32_t kept = 0;
  if (exchange && !exchange->body_buffering && exchange->request_body.bytes < stream->unused)
    kept = (uint32_t)exchange->request_body.bytes;
  else if (exchange && !exchange->body_buffering)
    kept = stream->unused;
  if (stream->unused == kept) return;
  nghttp2_session_consume(stream->h2->session, stream->id, stream->unused - kept);
  stream->unused = kept;
  h2_wake(stream->h2);
}

void h2_stream_settle(struct h2_stream *stream) {
  h2_stream_begin(stream);
  release_held(stream);
  if (stream->exchange) exchange_on_body_settled(stream->exchange);
  give_back(stream);
}

// ---- Responses -------------------------------------------------------------------------------------------------------

static struct slice number_text(struct arena *arena, uint64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  return arena_copy(arena, digits + at, sizeof digits - at);
}

// Via as the client gets it: what the service had, and us.
static struct slice via_text(struct exchange *exchange) {
  struct slice own = forward_via(&exchange->service_message);
  struct headers *headers = &exchange->response;
  if (!headers_has(headers, FIELD_VIA)) return own;
  size_t room = own.len, at = 0;
  for (uint32_t i = 0; i < headers->count; i++)
    if (headers->fields[i].id == FIELD_VIA) room += headers->fields[i].value.len + 2;
  char *text = arena_alloc(&exchange->arena, room);
  if (!text) return own;
  for (uint32_t i = 0; i < headers->count; i++) {
    if (headers->fields[i].id != FIELD_VIA) continue;
    memcpy(text + at, headers->fields[i].value.data, headers->fields[i].value.len);
    at += headers->fields[i].value.len;
    memcpy(text + at, ", ", 2);
    at += 2;
  }
  memcpy(text + at, own.data, own.len);
  return (struct slice){text, (uint32_t)room};
}

static void put_length(struct h2_fields *head, struct exchange *exchange) {
  if (exchange->state == EXCHANGE_TUNNEL || exchange->status == 204 || exchange->response_length < 0) return;
  // A response to HEAD, or 304, may tell the length that the content would have (RFC 9110 8.6).
  if (exchange->response_length == 0 && exchange->status == 304) return;
  h2_put(head, SLICE("content-length"), number_text(&exchange->arena, (uint64_t)exchange->response_length));
}

static int make_head(struct h2_stream *stream, struct exchange *exchange) {
  struct h2_fields *head = &stream->head;
  struct arena *arena = &exchange->arena;
  bool tunnel = exchange->state == EXCHANGE_TUNNEL;
  if (h2_fields_init(head, arena, exchange->response.count + OWN_FIELDS) < 0) return ERROR_MEMORY;
  int status = tunnel ? 200 : exchange_sent_status(exchange);
  h2_put(head, SLICE(":status"), number_text(arena, (uint64_t)status));
  if (tunnel) headers_remove(&exchange->response, SLICE("sec-websocket-accept"));
  bool via = exchange->source == SOURCE_SERVICE && exchange_tells(exchange, TELL_VIA);
  h2_put_headers(head, &exchange->response, BIT(CONTENT_LENGTH) | (via ? BIT(VIA) : 0));
  if (!headers_has(&exchange->response, FIELD_DATE))
    h2_put(head, SLICE("date"), (struct slice){clock_http_date(&exchange->worker->loop.clock), 29});
  if (via)
    h2_put(head, SLICE("via"), via_text(exchange));
  else if (exchange->source != SOURCE_SERVICE && !headers_has(&exchange->response, FIELD_SERVER) &&
           exchange_tells(exchange, TELL_SERVER))
    h2_put(head, SLICE("server"), SLICE("sluice"));
  put_length(head, exchange);
  return head->bytes <= CHUNK_BYTES ? 0 : ERROR_INVALID;
}

// A head that is too large: plugins have put too much into it.
static void make_bare_head(struct h2_stream *stream, struct exchange *exchange) {
  log_error(&exchange->worker->log, "the head of a response is too large", "request", exchange_id(exchange));
  exchange->status = 500;
  exchange->no_body_out = true;
  if (h2_fields_init(&stream->head, &exchange->arena, 1) == 0) h2_put(&stream->head, SLICE(":status"), SLICE("500"));
}

// The fields as they were sent, for plugins of phase log.
static void note_sent_fields(struct exchange *exchange, const struct h2_fields *head) {
  struct headers sent;
  headers_init(&sent, UINT32_MAX);
  for (uint32_t i = 1; i < head->count; i++) {
    const nghttp2_nv *pair = &head->list[i];
    headers_add(&sent, &exchange->arena, (struct slice){(const char *)pair->name, (uint32_t)pair->namelen},
                (struct slice){(const char *)pair->value, (uint32_t)pair->valuelen});
  }
  exchange->response = sent;
}

static int submit_trailers(struct h2_stream *stream) {
  return nghttp2_submit_trailer(stream->h2->session, stream->id, stream->trailers.list, stream->trailers.count);
}

// nghttp2 asks how much content it may send. The bytes are written by h2_server.c's callback, without a copy.
static ssize_t on_pull(nghttp2_session *session, int32_t id, uint8_t *data, size_t room, uint32_t *flags,
                       nghttp2_data_source *source, void *context) {
  (void)session, (void)id, (void)data, (void)context;
  struct h2_stream *stream = source->ptr;
  if (stream->out.bytes == 0 && !stream->ended) {
    stream->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  size_t len = stream->out.bytes < room ? stream->out.bytes : room;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (stream->ended && len == stream->out.bytes) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailers.list && submit_trailers(stream) == 0) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  }
  return (ssize_t)len;
}

static void submit_head(struct h2_stream *stream) {
  bool content = !stream->ended || stream->out.bytes > 0 || stream->trailers.list;
  nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = on_pull};
  stream->head_pending = false;
  stream->sent_us = now_of(stream);
  int result = stream->head.count == 0 ? NGHTTP2_ERR_NOMEM
                                       : nghttp2_submit_response(stream->h2->session, stream->id, stream->head.list,
                                                                 stream->head.count, content ? &provider : NULL);
  if (result != 0) reset(stream);
}

static void h2_head(struct exchange *exchange) {
  struct h2_stream *stream = stream_of(exchange);
  if (make_head(stream, exchange) < 0) make_bare_head(stream, exchange);
  stream->head_pending = true;
  exchange->response_bytes += stream->head.bytes;
  if (exchange->phases & (1u << PHASE_LOG)) note_sent_fields(exchange, &stream->head);
  if (exchange->state == EXCHANGE_TUNNEL) submit_head(stream); // a tunnel moves to less memory, and content follows
}

static void h2_interim(struct exchange *exchange, int status, const struct headers *fields) {
  struct h2_stream *stream = stream_of(exchange);
  struct h2_fields head;
  if (h2_fields_init(&head, &exchange->arena, (fields ? fields->count : 0) + 1) < 0) return;
  h2_put(&head, SLICE(":status"), number_text(&exchange->arena, (uint64_t)status));
  if (fields) h2_put_headers(&head, fields, BIT(CONTENT_LENGTH));
  nghttp2_submit_headers(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, head.list, head.count, NULL);
  h2_wake(stream->h2);
}

// Small pieces of all streams share a chunk: a client that takes none of them makes us hold little more than their bytes.
static int queue_small(struct h2_stream *stream, const char *data, uint32_t len) {
  struct h2_server *h2 = stream->h2;
  if (h2->small && h2->small->refs == 1) h2->small->used = 0;
  if (h2->small && CHUNK_BYTES - h2->small->used < len) {
    chunk_release(h2->small);
    h2->small = NULL;
  }
  if (!h2->small) h2->small = chunk_take(&h2->worker->chunks);
  if (!h2->small) return ERROR_MEMORY;
  char *to = h2->small->data + h2->small->used;
  memcpy(to, data, len);
  h2->small->used += len;
  return buffer_append_ref(&stream->out, h2->small, to, len);
}

static int queue_copy(struct h2_stream *stream, const char *data, uint32_t len) {
  while (len > 0) {
    uint32_t piece = len < CHUNK_BYTES ? len : CHUNK_BYTES;
    if (queue_small(stream, data, piece) < 0) return ERROR_MEMORY;
    data += piece;
    len -= piece;
  }
  return 0;
}

static void resume(struct h2_stream *stream) {
  if (!stream->deferred) return;
  stream->deferred = false;
  nghttp2_session_resume_data(stream->h2->session, stream->id);
}

static void h2_body(struct exchange *exchange, struct chunk *chunk, const char *data, uint32_t len) {
  struct h2_stream *stream = stream_of(exchange);
  if (exchange->no_body_out || len == 0) return;
  exchange->response_bytes += len;
  if (stream->out.bytes == 0) stream->sent_us = now_of(stream);
  if (stream->h2->queued == 0) stream->h2->progress_us = now_of(stream);
  int failed =
      chunk && len > COPY_MOST ? buffer_append_ref(&stream->out, chunk, data, len) : queue_copy(stream, data, len);
  if (failed) {
    reset(stream);
    return;
  }
  stream->h2->queued += len;
  resume(stream);
}

// The exchange and its memory go before nghttp2 asks for the trailers.
static void keep_trailers(struct h2_stream *stream, struct exchange *exchange, const struct headers *trailers) {
  struct h2_fields *kept = &stream->trailers;
  struct h2_fields list;
  if (trailers->count == 0 || h2_fields_init(&list, &exchange->arena, trailers->count) < 0) return;
  h2_put_trailers(&list, trailers);
  if (list.count == 0) return;
  size_t table = list.count * sizeof *list.list;
  kept->list = malloc(table + list.bytes);
  if (!kept->list) return;
  kept->count = list.count;
  memcpy(kept->list, list.list, table);
  uint8_t *at = (uint8_t *)kept->list + table;
  for (uint32_t i = 0; i < kept->count; i++) {
    nghttp2_nv *pair = &kept->list[i];
    pair->name = memcpy(at, pair->name, pair->namelen);
    pair->value = memcpy(at + pair->namelen, pair->value, pair->valuelen);
    at += pair->namelen + pair->valuelen;
  }
}

// Whether nghttp2 has more to do for the stream than was asked of it: the exchange is no longer its own.
static void let_go(struct h2_stream *stream) {
  stream->exchange = NULL;
  stream->congested = false;
  give_back(stream);
  h2_wake(stream->h2);
}

static void h2_end(struct exchange *exchange, const struct headers *trailers) {
  struct h2_stream *stream = stream_of(exchange);
  stream->ended = true;
  if (trailers && !exchange->no_body_out) keep_trailers(stream, exchange, trailers);
  if (stream->head_pending) submit_head(stream);
  resume(stream);
  h2_bucket_earn(&stream->h2->calm, H2_EARNED_REQUEST);
  h2_bucket_earn(&stream->h2->resets, 1);
  let_go(stream);
}

static void h2_abort(struct exchange *exchange) {
  struct h2_stream *stream = stream_of(exchange);
  reset(stream);
  let_go(stream);
}

static void h2_flush(struct exchange *exchange) {
  struct h2_stream *stream = stream_of(exchange);
  if (stream->head_pending) submit_head(stream);
  h2_wake(stream->h2);
}

bool h2_stream_is_congested(const struct h2_stream *stream) {
  size_t mine = stream->out.bytes;
  size_t most = stream->congested ? QUEUE_LOW : QUEUE_HIGH; // what was full has to be nearly empty first
  return mine > most || (mine > 0 && stream->h2->queued > QUEUES_HIGH);
}

static bool h2_is_congested(const struct exchange *exchange) {
  struct h2_stream *stream = stream_of(exchange);
  if (h2_stream_is_congested(stream)) stream->congested = stream->h2->congested = true;
  return stream->congested;
}

static void h2_want_body(struct exchange *exchange, bool wanted) {
  struct h2_stream *stream = stream_of(exchange);
  if (stream->tunnel_asked && !stream->tunnel) return;
  if (wanted && !stream->want_body) stream->content_us = now_of(stream);
  stream->want_body = wanted;
  if (wanted) give_back(stream);
}

static void h2_tunnel(struct exchange *exchange) {
  struct h2_stream *stream = stream_of(exchange);
  stream->tunnel = stream->want_body = true;
  h2_touch(stream); // what has come is handed over when the stack is no longer the exchange's
}

static const struct stream_ops h2_ops = {
    .head = h2_head,
    .interim = h2_interim,
    .body = h2_body,
    .end = h2_end,
    .abort = h2_abort,
    .flush = h2_flush,
    .is_congested = h2_is_congested,
    .want_body = h2_want_body,
    .tunnel = h2_tunnel,
};
