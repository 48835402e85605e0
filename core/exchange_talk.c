// SPDX-License-Identifier: Apache-2.0
// A WebSocket whose other end is a plugin: no service is called. The plugin's phase goes on while it is open, asks for
// the client's messages one by one, and sends its own; a client that sends faster than it is asked is read no further.
#include "exchange_talk.h"

#include <stddef.h>
#include <stdlib.h>

#include "crypto.h"
#include "exchange_parts.h"
#include "phase.h"
#include "websocket.h"
#include "worker.h"

enum { CLOSE_MS = 3000, ACCEPT_BYTES = 28, KEY_MOST = 64, SHA1_BYTES = 20 };

struct talk {
  struct exchange *exchange;
  struct ws_reader reader;
  struct buffer pending; // what has come and is not read yet
  bool held;             // the reader has a message that nobody has asked for
  bool given;            // or that was given, and lives until the next one is asked for
  bool told;             // our close has gone
  bool closed;           // nothing that still comes is of interest
  uint16_t code;         // that the client has closed with; 0: it has not
  double receiver;       // coroutine that waits for a message, 0: none
  struct timer timer;    // for the client to end the connection
};

// ---- Sending ---------------------------------------------------------------------------------------------------------

static void send_frame(struct talk *it, enum ws_opcode opcode, struct slice data) {
  struct exchange *exchange = it->exchange;
  if (!exchange->stream || it->told) return;
  char head[WS_HEAD_MOST];
  uint32_t len = ws_head(head, opcode, false, data.len, NULL);
  exchange->response_body_bytes += len + data.len;
  exchange->ops->body(exchange, NULL, head, len);
  if (data.len) exchange->ops->body(exchange, NULL, data.data, data.len);
  exchange->ops->flush(exchange);
}

static void finish_later(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (exchange && exchange->talk && exchange->state == EXCHANGE_TUNNEL) exchange_send_end(exchange);
}

static void talk_finish(struct talk *it) {
  worker_later(it->exchange->worker, finish_later, exchange_handle(it->exchange));
}

static void on_timer(struct timer *timer) {
  talk_finish((struct talk *)(void *)((char *)timer - offsetof(struct talk, timer)));
}

static void wake_receiver(struct talk *it, int status) {
  if (it->receiver != 0) bridge_wake(it->exchange->worker, it->receiver, status, 0);
  it->receiver = 0;
}

// Tells the client, who is to end the connection then; who does not is left (RFC 6455 7.1.1).
static void shut(struct talk *it, uint16_t code, struct slice reason) {
  struct worker *worker = it->exchange->worker;
  char payload[WS_CONTROL_MOST];
  uint32_t len = ws_close_payload(payload, code, reason);
  if (!it->told) send_frame(it, WS_CLOSE, (struct slice){payload, len});
  it->told = true;
  wake_receiver(it, BRIDGE_CLOSED);
  if (it->code)
    talk_finish(it);
  else
    timer_set(&worker->loop.timers, &it->timer, worker->loop.clock.mono_us + (int64_t)CLOSE_MS * 1000);
}

// ---- Reading ---------------------------------------------------------------------------------------------------------

static void on_close(struct talk *it, struct slice payload) {
  struct slice reason;
  uint16_t code = ws_close_code(payload, &reason);
  it->code = code;
  it->closed = true;
  buffer_clear(&it->pending);
  if (it->told)
    talk_finish(it);
  else
    shut(it, code == WS_NO_STATUS ? WS_NORMAL : code, SLICE(""));
}

static void on_message(struct talk *it) {
  struct ws_message message = ws_message(&it->reader);
  if (message.opcode == WS_CLOSE) {
    on_close(it, message.data);
  } else if (message.opcode == WS_PING) {
    // Who does not read is answered no pings: each would stay here.
    if (!it->exchange->ops->is_congested(it->exchange)) send_frame(it, WS_PONG, message.data);
  } else if (message.opcode != WS_PONG) {
    it->held = true;
    wake_receiver(it, BRIDGE_OK);
  }
}

// Up to a message that somebody has to ask for.
static void read_on(struct talk *it) {
  while (it->pending.count > 0 && !it->held && !it->closed) {
    struct segment first = it->pending.segments[it->pending.head];
    uint32_t used = 0;
    enum ws_event event = ws_next(&it->reader, (struct slice){first.data, first.len}, &used);
    if (event == WS_ERROR) {
      it->closed = true;
      shut(it, it->reader.code, slice_of(it->reader.reason));
      break;
    }
    buffer_consume(&it->pending, used);
    if (event == WS_MESSAGE) on_message(it);
  }
  if (it->closed) buffer_clear(&it->pending);
  if (it->exchange->stream) it->exchange->ops->want_body(it->exchange, it->pending.bytes == 0);
}

void talk_on_client(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  struct talk *it = exchange->talk;
  if (it->closed) return;
  int failed = chunk ? buffer_append_piece(&it->pending, chunk, piece.data, piece.len)
                     : buffer_append(&it->pending, piece.data, piece.len);
  if (failed)
    exchange_cut(exchange, 500, UNEXPECTED);
  else
    read_on(it);
}

void talk_on_client_end(struct exchange *exchange) {
  struct talk *it = exchange->talk;
  it->closed = it->told = true; // it has gone without a word, or behind the last one
  wake_receiver(it, BRIDGE_CLOSED);
  talk_finish(it);
}

// ---- The handshake ---------------------------------------------------------------------------------------------------

static bool put_accept(struct exchange *exchange) {
  static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 1.3
  const struct field *key = headers_find(&exchange->request.headers, SLICE("Sec-WebSocket-Key"), 0);
  char text[KEY_MOST + sizeof magic], accept[ACCEPT_BYTES + 1];
  uint8_t digest[SHA1_BYTES];
  if (!key || key->value.len > KEY_MOST) return false;
  memcpy(text, key->value.data, key->value.len);
  memcpy(text + key->value.len, magic, sizeof magic - 1);
  struct slice whole = {text, (uint32_t)(key->value.len + sizeof magic - 1)};
  if (crypto_digest(CRYPTO_SHA1, whole, digest) < 0) return false;
  uint32_t len = crypto_encode(CRYPTO_BASE64, (struct slice){(const char *)digest, SHA1_BYTES}, accept);
  struct slice copy = arena_copy(&exchange->arena, accept, len);
  return copy.data && headers_set(&exchange->response, &exchange->arena, SLICE("Sec-WebSocket-Accept"), copy) == 0;
}

bool talk_is_asked(const struct exchange *exchange) {
  const struct headers *headers = &exchange->request.headers;
  const struct field *upgrade = headers_find_id(headers, FIELD_UPGRADE);
  const struct field *version = headers_find(headers, SLICE("Sec-WebSocket-Version"), 0);
  return exchange->request.upgrade && upgrade && slice_equal_nocase(upgrade->value, SLICE("websocket")) && version &&
         slice_equal(version->value, SLICE("13")) && headers_find(headers, SLICE("Sec-WebSocket-Key"), 0);
}

static struct talk *talk_new(struct exchange *exchange) {
  struct talk *it = calloc(1, sizeof *it);
  if (!it) return NULL;
  it->exchange = exchange;
  uint32_t most =
      exchange->message_most[0] ? exchange->message_most[0] : exchange->generation->limits.websocket_client_most;
  ws_reader_init(&it->reader, true, most);
  buffer_init(&it->pending, &exchange->worker->chunks);
  timer_init(&it->timer, on_timer);
  return it;
}

// False: the answer cannot be made.
static bool make_head(struct exchange *exchange) {
  exchange_begin_answer(exchange, 101);
  return headers_set(&exchange->response, &exchange->arena, SLICE("Upgrade"), SLICE("websocket")) == 0 &&
         put_accept(exchange);
}

static void open_tunnel(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_TUNNEL);
  exchange->generation->tunnels++;
  exchange->status = 101; // whatever a plugin would like it to be
  exchange->source = SOURCE_EXIT;
  exchange->head_sent = true;
  exchange->request_complete = exchange->body_replaced = false; // what the client sends from now on begins anew
  exchange->no_body_out = true;
  exchange->ops->head(exchange);
  if (exchange->status != 101) { // it could not be sent
    exchange_cut(exchange, 500, UNEXPECTED);
    return;
  }
  exchange->no_body_out = false; // what comes now is no content, and passes
  exchange->ops->flush(exchange);
  exchange_slim(exchange);
  exchange->ops->tunnel(exchange);
}

// In the next step of the loop: header_filter may not run inside a call from Lua.
static void talk_start(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange || exchange->state != EXCHANGE_ACCESS) return;
  bool good = make_head(exchange) && exchange_filter_head(exchange);
  exchange->waiting = true; // in access, whose plugin goes on
  if (good && exchange->stream) exchange->talk = talk_new(exchange);
  if (!exchange->talk) {
    exchange_wake(exchange, &exchange->stream_waiter, exchange->stream ? BRIDGE_FAILED : BRIDGE_CLOSED);
    return;
  }
  double waiter = exchange->stream_waiter;
  exchange->stream_waiter = 0;
  open_tunnel(exchange);
  bool open = exchange_find(worker, handle) == exchange && exchange->state == EXCHANGE_TUNNEL;
  worker_wake(worker, waiter, open ? BRIDGE_OK : BRIDGE_CLOSED, 0);
}

int talk_accept(struct exchange *exchange) {
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  if (exchange->state != EXCHANGE_ACCESS || exchange->head_sent) return BRIDGE_LATE;
  if (!talk_is_asked(exchange)) return BRIDGE_INVALID;
  exchange->stream_waiter = phase_self(exchange->worker);
  return worker_later(exchange->worker, talk_start, exchange_handle(exchange)) < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

// ---- What the plugin does --------------------------------------------------------------------------------------------

static struct talk *open_talk(const struct exchange *exchange) {
  bool open = exchange->talk && exchange->state == EXCHANGE_TUNNEL && exchange->stream;
  return open && !exchange->talk->told ? exchange->talk : NULL;
}

int talk_send(struct exchange *exchange, int opcode, struct slice data) {
  struct talk *it = open_talk(exchange);
  if (!it) return BRIDGE_CLOSED;
  bool control = opcode == WS_PING || opcode == WS_PONG;
  if (!control && opcode != WS_TEXT && opcode != WS_BINARY) return BRIDGE_INVALID;
  if (control && data.len > WS_CONTROL_MOST) return BRIDGE_INVALID;
  if (opcode == WS_TEXT && !ws_utf8_is_valid(data)) return BRIDGE_INVALID;
  send_frame(it, (enum ws_opcode)opcode, data);
  if (!exchange->ops->is_congested(exchange)) return BRIDGE_OK;
  exchange->stream_waiter = phase_self(exchange->worker);
  return BRIDGE_AGAIN;
}

int talk_receive(struct exchange *exchange, double timeout_s, struct talk_message *out) {
  struct talk *it = open_talk(exchange);
  if (!it) return BRIDGE_CLOSED;
  if (it->given) {
    it->given = it->held = false;
    read_on(it);
    if (it->told) return BRIDGE_CLOSED;
  }
  if (it->held) {
    struct ws_message message = ws_message(&it->reader);
    it->given = true;
    *out = (struct talk_message){.opcode = message.opcode, .data = {message.data.data, message.data.len}};
    return BRIDGE_OK;
  }
  if (!(timeout_s > 0)) return BRIDGE_NONE;
  it->receiver = phase_self(exchange->worker);
  return bridge_wait(exchange->worker, timeout_s < 1e8 ? timeout_s : 1e8);
}

int talk_close(struct exchange *exchange, int code, struct slice reason) {
  struct talk *it = open_talk(exchange);
  if (!it) return BRIDGE_CLOSED;
  if (code < 0 || code > UINT16_MAX || !ws_code_is_valid((uint16_t)code) || !ws_utf8_is_valid(reason))
    return BRIDGE_INVALID;
  shut(it, (uint16_t)code, reason);
  return BRIDGE_OK;
}

int talk_end_code(const struct exchange *exchange) {
  return exchange->talk ? exchange->talk->code : 0;
}

// ---- The end ---------------------------------------------------------------------------------------------------------

void talk_on_phase_end(struct exchange *exchange, bool failed) {
  struct talk *it = open_talk(exchange);
  if (it) shut(it, failed ? WS_INTERNAL_ERROR : WS_NORMAL, SLICE(""));
}

void talk_drain(struct exchange *exchange) {
  struct talk *it = open_talk(exchange);
  if (it) shut(it, WS_GOING_AWAY, SLICE(""));
}

void talk_end(struct exchange *exchange) {
  struct talk *it = exchange->talk;
  wake_receiver(it, BRIDGE_CLOSED);
  timer_cancel(&exchange->worker->loop.timers, &it->timer);
  ws_reader_close(&it->reader);
  buffer_clear(&it->pending);
  exchange->talk = NULL;
  free(it);
}
