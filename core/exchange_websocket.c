// SPDX-License-Identifier: Apache-2.0
// A WebSocket whose messages the gateway looks at: plugins have a frame phase for it, or have bounded its messages. One
// without either stays a tunnel, of which nothing here hears.
//
//   client ──bytes──> way: reader ──message──> ws_client_frame   ──as passed on──> frame, masked ──> service
//   client <── frame <──as passed on── ws_upstream_frame <──message── way: reader <──bytes── service
//
// Each way is in order: while a plugin waits, or who should get its messages is slow, what comes lies in `pending`, and
// reading stops. Compression ends here on both sides: either both use it or none does.
//
// Where tunnels are to be drained at a reload, those that are WebSockets are `tracked`: their frames are counted, that a
// close may be put between two of them, and pass as they are.
#include <stdlib.h>

#include "crypto.h"
#include "exchange_parts.h"
#include "exchange_talk.h"
#include "forward.h"
#include "try.h"
#include "websocket.h"
#include "worker.h"

enum { CLIENT, SERVICE, SIDES }; // who is told; and the way that begins there

enum {
  CLOSE_MS = 3000, // for the other side to end the connection, once all has been said
  MESSAGES_A_TURN = 64,
  PACK_LEAST = 128 // bytes of a message worth compressing, when a plugin made it
};

#define FRAME_PHASES (1u << PHASE_WS_CLIENT_FRAME | 1u << PHASE_WS_UPSTREAM_FRAME)
#define EXTENSIONS SLICE("Sec-WebSocket-Extensions")

// What one side is told at the end.
struct ending {
  uint16_t code;
  uint8_t len;
  char reason[WS_CONTROL_MOST - 2];
};

struct way {
  struct ws_reader reader;
  struct ws_tracker *tracker; // NULL: messages are read
  struct buffer pending;
  bool waiting; // a plugin looks at the message that the reader holds
  bool closed;  // nothing that still comes is of interest
  bool ended;   // its sender has ended the connection
};

struct websocket {
  struct exchange *exchange; // NULL: it has ended
  struct worker *worker;
  struct way ways[SIDES];
  bool told[SIDES];       // a close frame has gone there
  bool ending;            // to both
  bool draining;          // ends behind the messages that have begun
  bool finished;          // the service has been told that no more bytes come
  int bits;               // of the window that the client reads with; 0: no compression
  uint32_t turn_left;     // messages before others get their turn
  struct ending *endings; // of both sides, once a plugin has asked for them
  struct job job;
  struct timer timer;
  struct grave grave;
};

// What all WebSockets of a worker share.
struct websockets {
  struct ws_zip *zip;
  uint32_t random_left;
  uint8_t random[256]; // masks have to be unpredictable (RFC 6455 10.3)
};

void websockets_close(struct worker *worker) {
  if (!worker->websockets) return;
  ws_zip_free(worker->websockets->zip);
  free(worker->websockets);
  worker->websockets = NULL;
}

static struct websockets *websockets_of(struct worker *worker) {
  if (!worker->websockets) worker->websockets = calloc(1, sizeof *worker->websockets);
  if (worker->websockets && !worker->websockets->zip) worker->websockets->zip = ws_zip_new();
  return worker->websockets && worker->websockets->zip ? worker->websockets : NULL;
}

static void on_timer(struct timer *timer);

// ---- The handshake ---------------------------------------------------------------------------------------------------

static bool wants_messages(const struct exchange *exchange) {
  return (exchange->phases & FRAME_PHASES) || exchange->message_most[CLIENT] || exchange->message_most[SERVICE];
}

static bool is_websocket(const struct headers *headers) {
  const struct field *upgrade = headers_find_id(headers, FIELD_UPGRADE);
  return upgrade && slice_equal_nocase(upgrade->value, SLICE("websocket"));
}

static int offered_bits(const struct headers *headers) {
  const struct field *field;
  int bits = 0;
  for (uint32_t nth = 0; (field = headers_find(headers, EXTENSIONS, nth)); nth++)
    if (ws_find_offer(field->value, &bits)) return bits;
  return 0;
}

void exchange_offer_websocket(struct exchange *exchange) {
  if (!wants_messages(exchange)) return;
  struct headers *headers = &exchange->request.headers;
  // Whatever else the two would speak, plugins would not see.
  if (!is_websocket(headers)) {
    exchange->request.upgrade = false;
    return;
  }
  exchange->reads_messages = true;
  exchange->message_bits = (uint8_t)offered_bits(headers);
  headers_remove(headers, EXTENSIONS);
  if (exchange->message_bits) headers_add(headers, &exchange->arena, EXTENSIONS, WS_OFFER);
}

static void refuse_service(struct exchange *exchange, const char *why) {
  log_warn(&exchange->worker->log, "a try failed", "cause", why, "service",
           exchange->service ? exchange->service->name.data : "", "address", exchange->target_ip, "request",
           exchange_id(exchange), "retrying", "no");
  try_abandon(exchange);
  exchange_on_service_failed(exchange, 502, why);
}

// What of the service's answer concerns extensions. False: it is not what was offered.
static bool agree(struct exchange *exchange, struct websocket *ws) {
  const struct headers *answer = &exchange->service_message.headers;
  const struct field *field = headers_find(answer, EXTENSIONS, 0);
  if (!field) return true;
  if (!exchange->message_bits || headers_find(answer, EXTENSIONS, 1) || !ws_is_agreed(field->value)) return false;
  ws->bits = exchange->message_bits;
  exchange_fork_response(exchange);
  headers_remove(&exchange->response, EXTENSIONS);
  char text[WS_EXTENSIONS_MOST];
  struct slice copy = arena_copy(&exchange->arena, text, ws_answer_offer(text, ws->bits));
  return copy.data && headers_add(&exchange->response, &exchange->arena, EXTENSIONS, copy) == 0;
}

static void way_open(struct way *way, struct exchange *exchange, int side, struct ws_zip *zip) {
  const struct limits *limits = &exchange->generation->limits;
  uint32_t most = side == CLIENT ? limits->websocket_client_most : limits->websocket_upstream_most;
  if (exchange->message_most[side]) most = exchange->message_most[side];
  ws_reader_init(&way->reader, side == CLIENT, most);
  way->reader.zip = zip;
  buffer_init(&way->pending, &exchange->worker->chunks);
}

bool exchange_open_websocket(struct exchange *exchange) {
  if (!is_websocket(&exchange->service_message.headers)) {
    refuse_service(exchange, "The service switched to another protocol than WebSocket");
    return false;
  }
  struct websockets *shared = websockets_of(exchange->worker);
  struct websocket *ws = shared ? calloc(1, sizeof *ws) : NULL;
  if (!ws) {
    refuse_service(exchange, "No memory for a WebSocket");
    return false;
  }
  exchange->websocket = ws;
  ws->worker = exchange->worker;
  timer_init(&ws->timer, on_timer);
  if (!agree(exchange, ws)) {
    refuse_service(exchange, "The service agreed to a WebSocket extension that was not offered");
    return false;
  }
  for (int side = 0; side < SIDES; side++) way_open(&ws->ways[side], exchange, side, ws->bits ? shared->zip : NULL);
  return true;
}

void exchange_track_websocket(struct exchange *exchange) {
  const struct limits *limits = &exchange->generation->limits;
  if (limits->websocket_on_reload != RELOAD_DRAIN || !is_websocket(&exchange->service_message.headers)) return;
  struct websocket *ws = calloc(1, sizeof *ws);
  if (!ws) return; // it stays a tunnel like others
  exchange->websocket = ws;
  ws->worker = exchange->worker;
  timer_init(&ws->timer, on_timer);
  for (int side = 0; side < SIDES; side++) {
    ws->ways[side].tracker = calloc(1, sizeof *ws->ways[side].tracker);
    buffer_init(&ws->ways[side].pending, &exchange->worker->chunks);
  }
  if (ws->ways[CLIENT].tracker && ws->ways[SERVICE].tracker) return;
  websocket_end(exchange);
  websocket_free(exchange);
}

// ---- Sending ---------------------------------------------------------------------------------------------------------

static bool new_mask(struct worker *worker, uint8_t mask[4]) {
  struct websockets *shared = worker->websockets;
  if (shared->random_left < 4) {
    if (crypto_random(shared->random, sizeof shared->random) < 0) return false;
    shared->random_left = sizeof shared->random;
  }
  shared->random_left -= 4;
  memcpy(mask, shared->random + shared->random_left, 4);
  return true;
}

static void to_client(struct exchange *exchange, enum ws_opcode opcode, struct slice data, bool packed) {
  if (!exchange->stream) return;
  char head[WS_HEAD_MOST];
  uint32_t len = ws_head(head, opcode, packed, data.len, NULL);
  exchange->response_body_bytes += len + data.len;
  exchange->ops->body(exchange, NULL, head, len);
  if (data.len) exchange->ops->body(exchange, NULL, data.data, data.len);
}

// False: no memory.
static bool append_masked(struct buffer *out, struct slice data, const uint8_t mask[4]) {
  for (uint32_t at = 0; at < data.len;) {
    uint32_t piece = data.len - at < CHUNK_BYTES ? data.len - at : CHUNK_BYTES;
    char *to = buffer_reserve(out, piece);
    if (!to) return false;
    ws_mask(to, data.data + at, piece, mask, at);
    buffer_commit(out, piece);
    at += piece;
  }
  return true;
}

static void to_service(struct exchange *exchange, enum ws_opcode opcode, struct slice data, bool packed) {
  if (!exchange->try) return;
  char head[WS_HEAD_MOST];
  uint8_t mask[4];
  bool good = new_mask(exchange->worker, mask);
  uint32_t len = ws_head(head, opcode, packed, data.len, mask);
  if (!good || buffer_append(&exchange->request_body, head, len) < 0 ||
      !append_masked(&exchange->request_body, data, mask))
    exchange_cut(exchange, 500, UNEXPECTED);
}

static void send_frame(struct websocket *ws, int side, enum ws_opcode opcode, struct slice data, bool packed) {
  if (!ws->exchange || ws->told[side]) return;
  if (opcode == WS_CLOSE) ws->told[side] = true;
  if (side == CLIENT)
    to_client(ws->exchange, opcode, data, packed);
  else
    to_service(ws->exchange, opcode, data, packed);
}

static void send_packed(struct websocket *ws, int side, enum ws_opcode opcode, struct slice data) {
  char *packed;
  uint32_t len;
  int bits = side == CLIENT ? ws->bits : WS_WINDOW_BITS;
  if (ws_pack(ws->worker->websockets->zip, bits, data, &packed, &len) < 0) {
    send_frame(ws, side, opcode, data, false);
    return;
  }
  send_frame(ws, side, opcode, (struct slice){packed, len}, true);
  free(packed);
}

// The message that its reader holds goes on; `changed`: with this content in place of its own.
static void pass(struct websocket *ws, struct way *way, const struct slice *changed) {
  struct ws_message whole = ws_message(&way->reader), *message = &whole;
  int to = way == &ws->ways[CLIENT] ? SERVICE : CLIENT;
  struct slice data = changed ? *changed : message->data;
  // A window that is smaller than the sender's is what the client has asked for (RFC 7692 7.1.2.1).
  bool as_it_came = !changed && message->packed.data && (to == SERVICE || ws->bits == WS_WINDOW_BITS);
  bool pack = ws->bits && message->opcode < WS_CLOSE &&
              (changed ? data.len >= PACK_LEAST : message->packed.data && !as_it_came);
  if (as_it_came)
    send_frame(ws, to, message->opcode, message->packed, true);
  else if (pack)
    send_packed(ws, to, message->opcode, data);
  else
    send_frame(ws, to, message->opcode, data, false);
}

// ---- Closing ---------------------------------------------------------------------------------------------------------

static void tell_end(struct websocket *ws, int side, uint16_t code, struct slice reason) {
  char payload[WS_CONTROL_MOST];
  uint32_t len = ws_close_payload(payload, code, reason);
  send_frame(ws, side, WS_CLOSE, (struct slice){payload, len}, false);
}

static void set_timer(struct websocket *ws, int64_t ms) {
  timer_set(&ws->worker->loop.timers, &ws->timer, ws->worker->loop.clock.mono_us + ms * 1000);
}

// Both sides have been told. The service ends the connection then; who does not is left (RFC 6455 7.1.1).
static void await_end(struct websocket *ws) {
  if (!ws->exchange || !ws->told[CLIENT] || !ws->told[SERVICE] || ws->ending) return;
  ws->ending = ws->exchange->request_complete = true;
  set_timer(ws, CLOSE_MS);
}

static void shut(struct websocket *ws, const struct ending endings[SIDES]) {
  for (int side = 0; side < SIDES; side++) {
    const struct ending *ending = &endings[side];
    ws->ways[side].closed = true;
    buffer_clear(&ws->ways[side].pending);
    tell_end(ws, side, ending->code, (struct slice){ending->reason, ending->len});
  }
}

static void ending_set(struct ending *ending, uint16_t code, struct slice reason) {
  char payload[WS_CONTROL_MOST];
  uint32_t len = ws_close_payload(payload, code, reason);
  ending->code = code;
  ending->len = (uint8_t)(len < 2 ? 0 : len - 2);
  memcpy(ending->reason, payload + 2, ending->len);
}

// One side is to blame, or none (SIDES); the other goes without fault.
static void shut_for(struct websocket *ws, int side, uint16_t code, const char *reason) {
  struct ending endings[SIDES];
  for (int i = 0; i < SIDES; i++) {
    bool told_why = side == SIDES || i == side;
    ending_set(&endings[i], told_why ? code : WS_GOING_AWAY, told_why ? slice_of(reason) : SLICE(""));
  }
  shut(ws, endings);
}

// Nothing of a message stands half-way on the wire, and none waits here.
static bool is_between(const struct way *way) {
  if (way->tracker) return ws_tracker_is_between(way->tracker) && !way->tracker->in_message;
  return !ws_is_midway(&way->reader) && !way->waiting && way->pending.bytes == 0;
}

// Draining: a way whose message has passed carries no more.
static void drain_ways(struct websocket *ws) {
  for (int side = 0; ws->draining && ws->exchange && side < SIDES; side++) {
    struct way *way = &ws->ways[side];
    if (way->closed || !is_between(way)) continue;
    way->closed = true;
    tell_end(ws, side == CLIENT ? SERVICE : CLIENT, WS_GOING_AWAY, SLICE(""));
  }
  await_end(ws);
}

// ---- Messages --------------------------------------------------------------------------------------------------------

static int side_of(const struct websocket *ws, const struct way *way) {
  return way == &ws->ways[CLIENT] ? CLIENT : SERVICE;
}

static enum phase phase_of(const struct websocket *ws, const struct way *way) {
  return side_of(ws, way) == CLIENT ? PHASE_WS_CLIENT_FRAME : PHASE_WS_UPSTREAM_FRAME;
}

static void after_phase(struct websocket *ws, struct way *way, enum phase_result result, struct slice text) {
  if (!ws->exchange) return;
  if (result == PHASE_FAILED)
    shut_for(ws, SIDES, WS_INTERNAL_ERROR, "");
  else if (ws->endings)
    shut(ws, ws->endings);
  else if (result == PHASE_DONE)
    pass(ws, way, text.data ? &text : NULL);
  drain_ways(ws);
  await_end(ws);
}

static void on_message(struct websocket *ws, struct way *way) {
  struct exchange *exchange = ws->exchange;
  struct ws_message whole = ws_message(&way->reader), *message = &whole;
  enum phase phase = phase_of(ws, way);
  ws->turn_left--;
  if (message->opcode == WS_CLOSE) {
    way->closed = true; // nothing may follow it (RFC 6455 5.5.1)
    buffer_clear(&way->pending);
  }
  if (!(exchange->phases & (1u << phase))) {
    after_phase(ws, way, PHASE_DONE, (struct slice){NULL, 0});
    return;
  }
  exchange->entered_lua = true;
  struct slice text = {NULL, 0};
  enum phase_result result = phase_frame(ws->worker, exchange_handle(exchange), exchange->generation->id,
                                         exchange->route_index, phase, message->opcode, message->data, &text);
  way->waiting = result == PHASE_WAITING;
  if (!way->waiting) after_phase(ws, way, result, text);
}

static bool may_read(const struct websocket *ws, const struct way *way) {
  if (!ws->exchange || way->waiting || way->closed || ws->turn_left == 0) return false;
  const struct exchange *exchange = ws->exchange;
  return side_of(ws, way) == CLIENT ? !exchange->service_full
                                    : exchange->stream && !exchange->ops->is_congested(exchange);
}

// Messages out of the input, as far as may be. The bytes that were used.
static uint32_t way_read(struct websocket *ws, struct way *way, struct slice input) {
  uint32_t used, all = 0;
  while (may_read(ws, way)) {
    enum ws_event event = ws_next(&way->reader, (struct slice){input.data + all, input.len - all}, &used);
    all += used;
    if (event == WS_MORE) break;
    if (event == WS_MESSAGE) {
      on_message(ws, way);
    } else {
      shut_for(ws, side_of(ws, way), way->reader.code, way->reader.reason);
      await_end(ws);
    }
  }
  return ws->exchange && !way->closed ? all : input.len;
}

// What lies in `pending`, as far as may be.
static void way_go_on(struct websocket *ws, struct way *way) {
  while (way->pending.count > 0 && may_read(ws, way)) {
    struct segment first = way->pending.segments[way->pending.head];
    chunk_retain(first.chunk);
    uint32_t used = way_read(ws, way, (struct slice){first.data, first.len});
    if (ws->exchange && !way->closed) buffer_consume(&way->pending, used);
    chunk_release(first.chunk);
  }
  if (way->pending.bytes == 0) buffer_clear(&way->pending);
}

// ---- Flow ------------------------------------------------------------------------------------------------------------

static bool is_held(const struct way *way) {
  return way->waiting || way->pending.bytes > 0;
}

static void run_later(struct worker *worker, void *data);

static void later(struct websocket *ws) {
  worker_give_way(ws->worker, run_later, ws, &ws->job);
}

// Their sender has ended, and all of its messages have passed. False: that was the end of the exchange.
static bool pass_ends(struct websocket *ws) {
  struct exchange *exchange = ws->exchange;
  struct way *client = &ws->ways[CLIENT], *service = &ws->ways[SERVICE];
  if (service->ended && !is_held(service)) {
    exchange_send_end(exchange);
    return false;
  }
  if (client->ended && !is_held(client)) exchange->request_complete = true;
  return true;
}

// What was made goes out, and both sides are read from as far as they may be.
static void settle(struct websocket *ws) {
  struct exchange *exchange = ws->exchange;
  if (!exchange || !pass_ends(ws)) return;
  bool finish = exchange->request_complete && !ws->finished;
  if (exchange->try && (exchange->request_body.bytes > 0 || finish)) {
    ws->finished = exchange->request_complete;
    try_on_request(exchange);
  }
  if (ws->exchange && exchange->stream) exchange->ops->flush(exchange);
  if (!ws->exchange || !exchange->stream) return;
  exchange->ops->want_body(exchange, !is_held(&ws->ways[CLIENT]) && !exchange->service_full);
  if (exchange->try && !exchange_is_full(exchange)) try_resume(exchange);
  bool more = (ws->ways[CLIENT].pending.bytes > 0 && may_read(ws, &ws->ways[CLIENT])) ||
              (ws->ways[SERVICE].pending.bytes > 0 && may_read(ws, &ws->ways[SERVICE]));
  if (ws->turn_left == 0 || more) later(ws);
}

static void run_later(struct worker *worker, void *data) {
  (void)worker;
  struct websocket *ws = data;
  ws->turn_left = MESSAGES_A_TURN;
  way_go_on(ws, &ws->ways[CLIENT]);
  way_go_on(ws, &ws->ways[SERVICE]);
  settle(ws);
}

static void pass_bytes(struct websocket *ws, int from, struct chunk *chunk, struct slice piece) {
  struct exchange *exchange = ws->exchange;
  if (from == SERVICE) {
    exchange->response_body_bytes += piece.len;
    if (exchange->stream) exchange->ops->body(exchange, chunk, piece.data, piece.len);
  } else if (exchange->try) {
    struct buffer *to = &exchange->request_body;
    int failed =
        chunk ? buffer_append_piece(to, chunk, piece.data, piece.len) : buffer_append(to, piece.data, piece.len);
    if (failed) exchange_cut(exchange, 500, UNEXPECTED);
  }
}

// Frames that are counted, not read: as they are, up to where a drain may end them.
static void on_tracked(struct websocket *ws, struct way *way, struct chunk *chunk, struct slice piece) {
  uint32_t at = 0;
  while (at < piece.len && !(ws->draining && is_between(way)))
    at += ws_track(way->tracker, (struct slice){piece.data + at, piece.len - at});
  if (at > 0 && !way->closed) pass_bytes(ws, side_of(ws, way), chunk, (struct slice){piece.data, at});
  drain_ways(ws);
  settle(ws);
}

static void on_bytes(struct websocket *ws, struct way *way, struct chunk *chunk, struct slice piece) {
  if (way->tracker) {
    on_tracked(ws, way, chunk, piece);
    return;
  }
  if (!job_is_queued(&ws->job)) ws->turn_left = MESSAGES_A_TURN;
  uint32_t used = way->pending.bytes == 0 ? way_read(ws, way, piece) : 0;
  if (!ws->exchange) return;
  piece = (struct slice){piece.data + used, piece.len - used};
  if (piece.len > 0 && !way->closed) {
    int failed = chunk ? buffer_append_piece(&way->pending, chunk, piece.data, piece.len)
                       : buffer_append(&way->pending, piece.data, piece.len);
    if (failed) {
      exchange_cut(ws->exchange, 500, UNEXPECTED);
      return;
    }
  }
  settle(ws);
}

// ---- What happens to the exchange ------------------------------------------------------------------------------------

void websocket_begin(struct exchange *exchange) {
  struct websocket *ws = exchange->websocket;
  ws->exchange = exchange;
  ws->turn_left = MESSAGES_A_TURN;
  // What a client sent before it was answered.
  buffer_move(&ws->ways[CLIENT].pending, &exchange->request_body, exchange->request_body.bytes);
  if (ws->ways[CLIENT].pending.bytes > 0) later(ws);
}

void websocket_on_client(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  on_bytes(exchange->websocket, &exchange->websocket->ways[CLIENT], chunk, piece);
}

void websocket_on_service(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  on_bytes(exchange->websocket, &exchange->websocket->ways[SERVICE], chunk, piece);
}

void websocket_on_client_end(struct exchange *exchange) {
  exchange->websocket->ways[CLIENT].ended = true;
  settle(exchange->websocket);
}

void websocket_on_service_end(struct exchange *exchange) {
  exchange->websocket->ways[SERVICE].ended = true;
  settle(exchange->websocket);
}

void websocket_on_drained(struct exchange *exchange) {
  struct websocket *ws = exchange->websocket;
  bool pending = ws->ways[CLIENT].pending.bytes > 0 || ws->ways[SERVICE].pending.bytes > 0;
  if (pending && !job_is_queued(&ws->job)) later(ws);
  if (exchange->stream && !is_held(&ws->ways[CLIENT]) && !exchange->service_full)
    exchange->ops->want_body(exchange, true);
  if (exchange->try && !exchange_is_full(exchange)) try_resume(exchange);
}

bool websocket_holds_service(const struct exchange *exchange) {
  return is_held(&exchange->websocket->ways[SERVICE]);
}

bool websocket_waits(const struct exchange *exchange) {
  const struct websocket *ws = exchange->websocket;
  return ws->ways[CLIENT].waiting || ws->ways[SERVICE].waiting;
}

void websocket_on_phase(struct exchange *exchange, enum phase phase, enum phase_result result, struct slice text) {
  struct websocket *ws = exchange->websocket;
  struct way *way = &ws->ways[phase == PHASE_WS_CLIENT_FRAME ? CLIENT : SERVICE];
  way->waiting = false;
  if (!ws->exchange) return;
  after_phase(ws, way, result, text);
  run_later(ws->worker, ws);
}

void websocket_end(struct exchange *exchange) {
  struct websocket *ws = exchange->websocket;
  ws->exchange = NULL;
  queue_drop(&ws->job);
  timer_cancel(&ws->worker->loop.timers, &ws->timer);
  for (int side = 0; side < SIDES; side++) {
    ws_reader_close(&ws->ways[side].reader);
    free(ws->ways[side].tracker);
    ws->ways[side].tracker = NULL;
    buffer_clear(&ws->ways[side].pending);
  }
  free(ws->endings);
  ws->endings = NULL;
}

// Behind the messages that have begun, or when the time is over: now, where there is none.
static void on_timer(struct timer *timer) {
  struct websocket *ws = (struct websocket *)(void *)((char *)timer - offsetof(struct websocket, timer));
  if (!ws->exchange) return;
  for (int side = 0; side < SIDES; side++) { // who waits for a whole frame can no longer be told
    struct way *way = &ws->ways[side];
    if (!way->tracker || is_between(way)) tell_end(ws, side == CLIENT ? SERVICE : CLIENT, WS_GOING_AWAY, SLICE(""));
    way->closed = true;
  }
  if (ws->exchange->try && ws->exchange->request_body.bytes > 0) try_on_request(ws->exchange);
  if (ws->exchange) exchange_send_end(ws->exchange);
}

// The tunnel ends: behind the messages that have begun, at the latest in `ms`; 0: now.
static void drain_tunnel(struct exchange *exchange, int64_t ms) {
  struct websocket *ws = exchange->websocket;
  if (exchange->talk) {
    talk_drain(exchange);
    return;
  }
  if (!ws || !ws->exchange) {
    if (ms == 0) exchange_send_end(exchange);
    return;
  }
  if (ws->ending || (ws->draining && ms > 0)) return;
  ws->draining = true;
  if (ms == 0) {
    on_timer(&ws->timer);
    return;
  }
  set_timer(ws, ms);
  drain_ways(ws);
  settle(ws);
}

void exchange_end_tunnels(struct worker *worker, const struct generation *generation, int64_t ms) {
  for (uint32_t slot = 0; slot < worker->slot_count; slot++) {
    struct exchange *exchange = worker->slots[slot];
    if (!exchange || exchange->state != EXCHANGE_TUNNEL || exchange->tcp) continue; // a stream goes on
    bool meant = generation ? exchange->generation == generation && exchange->route->ended
                            : exchange->websocket || exchange->talk;
    if (meant) drain_tunnel(exchange, ms);
  }
}

void websocket_free(struct exchange *exchange) {
  struct websocket *ws = exchange->websocket;
  exchange->websocket = NULL;
  worker_bury(exchange->worker, &ws->grave, ws);
}

// ---- From the bridge -------------------------------------------------------------------------------------------------

int exchange_close_websocket(struct exchange *exchange, int side, int code, struct slice reason) {
  struct websocket *ws = exchange->websocket;
  if (!ws || !ws->exchange) return BRIDGE_CLOSED;
  if (side < 0 || side >= SIDES || code < 0 || code > UINT16_MAX) return BRIDGE_INVALID;
  if (!ws_code_is_valid((uint16_t)code) || !ws_utf8_is_valid(reason)) return BRIDGE_INVALID;
  if (!ws->endings) {
    ws->endings = calloc(SIDES, sizeof *ws->endings);
    if (!ws->endings) return BRIDGE_FULL;
    ending_set(&ws->endings[CLIENT], WS_NORMAL, SLICE(""));
    ending_set(&ws->endings[SERVICE], WS_GOING_AWAY, SLICE(""));
  }
  ending_set(&ws->endings[side], (uint16_t)code, reason);
  return BRIDGE_OK;
}

int exchange_bound_websocket(struct exchange *exchange, int side, double most) {
  if (side < 0 || side >= SIDES || !(most >= 1 && most <= UINT32_MAX)) return BRIDGE_INVALID;
  exchange->message_most[side] = (uint32_t)most;
  if (exchange->websocket)
    exchange->websocket->ways[side].reader.most = (uint32_t)most;
  else if (exchange->state >= EXCHANGE_SERVICE)
    return BRIDGE_LATE;
  return BRIDGE_OK;
}
