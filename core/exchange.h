// SPDX-License-Identifier: Apache-2.0
// One request and its response, whatever protocol carried it: a state machine between a stream (the client's side),
// the phases (Lua) and a try (the service's side). Owns an arena; all that it allocated goes with it.
//
//   HEAD → REWRITE → ACCESS → SERVICE → [RESPONSE] → SENDING → LOG → ENDED
//                      │                                ▲
//                      └── answered by a plugin, error ─┘            TUNNEL: after 101
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "bridge.h"
#include "buffer.h"
#include "clock.h"
#include "generation.h"
#include "h1.h"
#include "loop.h"
#include "phase.h"
#include "slice.h"
#include "target.h"

struct budget;
struct coder;
struct exchange;
struct hedge;
struct lease;
struct try;
struct websocket;
struct worker;

enum exchange_state {
  EXCHANGE_FREE,
  EXCHANGE_HEAD,     // the head is arriving
  EXCHANGE_PREREAD,  // of a TCP stream, which has no head: plugins of preread
  EXCHANGE_REWRITE,  // plugins of rewrite
  EXCHANGE_ACCESS,   // plugins of access
  EXCHANGE_SERVICE,  // a try is on: connecting, sending, waiting for the response head
  EXCHANGE_RESPONSE, // a response being gathered whole, then plugins of response
  EXCHANGE_STREAM,   // a plugin sends the response piece by piece
  EXCHANGE_SENDING,  // response head has gone to the stream; its body follows
  EXCHANGE_TUNNEL,   // bytes both ways
  EXCHANGE_LOG,      // plugins of log
  EXCHANGE_ENDED
};

enum exchange_source { SOURCE_EXIT, SOURCE_SERVICE, SOURCE_ERROR };

// The client's side as the exchange sees it: what h1 and h2 have in common. Each may free nothing of the exchange.
struct stream_ops {
  // Sends the response head (exchange->status, response fields, framing as decided by the exchange).
  void (*head)(struct exchange *exchange);
  void (*interim)(struct exchange *exchange, int status, const struct headers *fields); // 1xx
  // Sends content; `chunk` holds the bytes (NULL: copied).
  void (*body)(struct exchange *exchange, struct chunk *chunk, const char *data, uint32_t len);
  // The response is whole. The stream may begin its next exchange; this one is no longer its own.
  void (*end)(struct exchange *exchange, const struct headers *trailers);
  // The response cannot be completed: the client must see that (close, RST_STREAM).
  void (*abort)(struct exchange *exchange);
  void (*flush)(struct exchange *exchange);
  bool (*is_congested)(const struct exchange *exchange);
  // More request content is wanted, or none for now.
  void (*want_body)(struct exchange *exchange, bool wanted);
  // After 101, or from the start of a TCP stream: raw bytes; gives what was read past the head.
  void (*tunnel)(struct exchange *exchange);
  // Of a TCP stream: the service sends no more, the client may.
  void (*finish)(struct exchange *exchange);
};

// Both ends of a TCP stream, as far as trusted proxies in front tell. A unix socket has a family and nothing else.
struct ends {
  struct address source, destination;
  struct address here; // the gateway's own, which routes ask for, whatever is told
};

// Who sent the request, over which connection. Copied: it outlives the connection until the log is written.
struct peer {
  char client_ip[46];
  uint16_t client_port, local_port;
  bool tls;
  bool trusted;      // client_ip is one of trusted_ips
  uint32_t requests; // on this connection so far
  uint64_t number;   // of the connection in its worker, from 1
};

struct endpoint;

// What plugins have the fields about the client say.
struct forwarded_choice {
  uint32_t set; // bits of enum forwarded
  struct slice values[FORWARDED_COUNT];
};

struct exchange {
  struct worker *worker;
  struct exchange *spare; // next of those that ended
  uint32_t slot;
  uint32_t serial; // with the slot: the handle
  uint8_t state;   // enum exchange_state; changed by exchange_move only
  uint8_t source;  // enum exchange_source
  bool tcp;        // a TCP or TLS stream: no request, no response
  bool waiting;    // a phase waits
  bool entered_lua;
  bool answered;         // bridge_exit in the running phase
  bool failed_response;  // cut off in the middle
  bool broken;           // a plugin breaks it off, see bridge_break_off
  bool request_complete; // all content of the request has come
  uint16_t refusal;      // the content cannot be taken: 413 too much, 400 its framing is broken, 408 it does not come
  bool body_buffering;   // a plugin waits for the whole request body
  bool body_replaced;    // by a plugin
  bool body_taken;       // a plugin takes the request's content piece by piece: see exchange_take_body
  bool body_passed;      // content was let go while an answer was streamed and nobody took it
  bool body_limited;     // body_most is a plugin's
  bool vouched;          // whose the request is stands in its fields: its trailers must not say so
  bool wants_identity;   // a plugin reads the response: the service is to use no content coding
  bool wants_whole_response; // a plugin does: header_filter runs once all of it has come
  bool sent_continue;
  bool filtering_body;
  bool detached; // its streamed answer goes on when the phase that began it has ended
  bool head_sent, chunked_out, no_body_out, close_after;
  bool grpc;            // the client speaks gRPC: see exchange_is_grpc
  bool grpc_answer;     // the answer tells its status gRPC's way
  uint8_t grpc_status;  // enum grpc_status to tell; 0: what `status` means
  bool slim;            // see exchange_slim
  bool reads_messages;  // a WebSocket that is more than a tunnel: see exchange_websocket.c
  bool service_full;    // it does not take content as fast as it comes
  uint8_t message_bits; // of the window that the client offered to read compressed messages with; 0: none
  bool unlogged;        // of no client: not in the access log
  bool still;           // a call that is no request: see exchange_stand
  bool has_response;    // `response` is what a plugin changes; before, it is `preset`
  struct generation *generation;
  struct arena arena;
  struct stream *stream; // NULL once gone
  const struct stream_ops *ops;

  struct peer peer;
  const struct ends *ends;              // of a TCP stream
  const char *tls_version, *tls_cipher; // NULL: no TLS
  struct slice tls_sni;

  // Request
  struct chunk *head_chunk; // holds the bytes of the head
  struct h1_message request;
  struct slice scheme, raw_path, path, query;
  struct slice authority, host; // as the client named it; in lower case without port
  bool has_query;
  uint16_t port;              // of Host or target; 0: not given
  struct buffer request_body; // content that has come and is not sent yet
  struct body_copy *copy;     // of content, for plugins; NULL: nobody wants it
  uint64_t request_bytes, body_received;
  uint64_t body_most;                    // bytes of content that are taken; 0: any
  struct slice whole_body, whole_answer; // content in one piece, made when asked for
  double body_waiter;                    // coroutine that waits for the whole body, or the next piece; 0: none
  uint32_t piece_bytes;                  // at the front of request_body, which a plugin has and which go next
  char id[33];

  // Route
  uint32_t route_index;
  uint32_t own_route;            // of a call: it is not looked for; 0: the router finds it
  const struct route *route;     // generation->routes[route_index]
  const struct service *service; // NULL: none
  struct router_result *match;   // in the arena; NULL: no route
  uint32_t phases;               // mask of the plan

  // To the service; NULL data: as the client sent it
  struct slice service_method, service_path, service_query, service_host;
  struct slice host_field; // Host, when a plugin has set it
  uint16_t service_port;
  int8_t service_tls;                 // -1: as the service says
  struct tls_choice *tls_choice;      // of plugins; NULL: as the service says
  struct forwarded_choice *forwarded; // of plugins, in the arena; NULL: all as the gateway says
  struct upstream *upstream;          // chosen by a plugin, else the service's
  uint32_t connect_timeout_ms, send_timeout_ms, read_timeout_ms, retries;
  struct try *try;
  struct lease *leases;        // that it holds, the latest first
  struct websocket *websocket; // NULL: none, or a tunnel
  struct talk *talk;           // a WebSocket whose other end is a plugin (exchange_talk.h)
  struct seat *seat;           // of a channel (channel.h) that its streamed answer comes from
  uint32_t message_most[2];    // bytes of a message of the client's and the service's, set by plugins; 0: not set
  struct budget *retry_budget; // NULL: none
  struct hedge *hedge;         // NULL: there will be no second try beside this one, or no more
  uint8_t hedged;              // enum hedged
  struct job next_try;
  struct caching *caching; // what a cache has to do with it (cache.h); NULL: nothing
  int64_t deadline_us;     // of the whole exchange, as its client set it (grpc-timeout); 0: none
  struct timer deadline;
  const char *told_timeout; // the client's text of it: not what a plugin put in its place
  uint32_t tries, moves;
  struct failed_try *failed_tries, **failed_end; // the first ones that failed, in order
  uint32_t failed_count;
  int64_t try_begun_us;      // of the last one
  bool last_failed;          // the last try is one of those that failed
  struct endpoint *endpoint; // that the running try counts at; NULL: none, see balance.h
  struct endpoint *left;     // that the last try counted at
  bool judged;               // the try has been counted
  uint64_t tried;            // targets, by their place modulo 64
  uint64_t hash;             // of what the policy chose by; 0: it chose otherwise
  struct buffer replay;      // references to request content already sent, while a retry is possible
  bool replayable;
  char target_ip[46];
  uint16_t target_port;

  // Response
  int status, service_status;
  struct slice reason;
  struct headers *hints;           // of a response 103, being gathered
  struct coder *coder;             // what the response's content goes through, if anything
  struct headers preset;           // fields set by plugins before there was a response
  struct headers response;         // what the client gets
  struct headers service_response; // as the service sent them
  struct headers trailers;         // what the client gets; before the service's have come, what plugins put over them
  bool own_trailers;               // plugins have changed them
  bool has_trailers;               // the service's have come
  struct h1_message service_message;
  struct chunk *response_chunk; // holds the bytes of the service's head
  struct buffer answer;         // body of an answer by the gateway, or the response gathered whole
  uint64_t response_bytes, response_body_bytes;
  double stream_waiter; // coroutine that waits for the stream to drain
  struct slice error;
  struct trace_ids *trace; // in the arena; NULL: none, or Lua has it
  struct slice message;    // of an answer by the gateway, where a client that speaks gRPC will be told; else NULL
  int64_t response_length; // -1: not known

  // Times, microseconds of the monotonic clock; 0: did not happen
  int64_t started_us, started_real_us, sent_us, first_byte_us, last_byte_us, ended_us;
};

// HTTP/2 has the version 2.0: the minor number alone tells nothing.
static inline bool is_http_1_0(const struct exchange *exchange) {
  return exchange->request.major == 1 && exchange->request.minor == 0;
}

// A new exchange of a stream, in state HEAD. NULL: no memory.
struct exchange *exchange_new(struct worker *worker, struct stream *stream, const struct stream_ops *ops);
double exchange_handle(const struct exchange *exchange);
struct exchange *exchange_find(struct worker *worker, double handle); // NULL: stale

// From the stream.
// A TCP stream: the client has connected. `protocol` is how (PROTOCOL_TCP, _TLS or _TLS_PASSTHROUGH); both texts are
// copied.
void exchange_on_connection(struct exchange *exchange, const struct ends *ends, uint32_t protocol, struct slice sni);
void exchange_on_head(struct exchange *exchange);
// Content, in `chunk`. Past the limit, or when nobody wants it any more, it is dropped.
void exchange_on_body(struct exchange *exchange, struct chunk *chunk, struct slice piece);
void exchange_on_body_settled(struct exchange *exchange); // that was all for now
void exchange_on_bad_body(struct exchange *exchange);     // content whose framing is broken
void exchange_on_late_body(struct exchange *exchange);    // content that does not come
void exchange_on_request_end(struct exchange *exchange);
void exchange_on_drained(struct exchange *exchange); // the stream can take more
void exchange_on_gone(struct exchange *exchange);    // the client left
// The head could not be read: answer and close.
void exchange_refuse(struct exchange *exchange, int status, const char *message);

// From the try.
void exchange_on_service_connected(struct exchange *exchange); // of a TCP stream
// The request is about to go to a service, which is told how much time is left.
void exchange_tell_deadline(struct exchange *exchange);
void exchange_on_service_interim(struct exchange *exchange, int status, struct headers *fields);
void exchange_on_service_head(struct exchange *exchange);
void exchange_on_service_body(struct exchange *exchange, struct chunk *chunk, struct slice piece);
void exchange_on_service_end(struct exchange *exchange);
void exchange_on_service_failed(struct exchange *exchange, int status, const char *message);
void exchange_on_service_drained(struct exchange *exchange);

// A response that is stored while it passes (exchange_cache.c), or comes from there.
void exchange_store_piece(struct exchange *exchange, struct slice piece);
void exchange_store_end(struct exchange *exchange);
void exchange_answer_stored(struct exchange *exchange);
void exchange_pump_stored(struct exchange *exchange); // the client can take more
void exchange_forget_cache(struct exchange *exchange);
void flights_close(struct worker *worker); // of exchange_flight.c

// From the bridge.
// Takes no more content of the request than that, nor than the gateway's own limit. FULL: more has come or is announced.
int exchange_limit_body(struct exchange *exchange, uint64_t most);
int exchange_exit(struct exchange *exchange, int status, const char *body, uint32_t len);
int exchange_exit_error(struct exchange *exchange, int status, const char *message, uint32_t len);
int exchange_use_service(struct exchange *exchange, uint32_t index); // OK or FULL
int exchange_copy_body(struct exchange *exchange, uint64_t most);    // OK, LATE or FULL
const struct buffer *exchange_body_copy(const struct exchange *exchange, bool *lost);
int exchange_early_hints(struct exchange *exchange);
int exchange_encode(struct exchange *exchange, int coding, int level); // see bridge_response_encode
void exchange_exit_message(struct exchange *exchange, const char *message, uint32_t len);
int exchange_fork_response(struct exchange *exchange);                  // before the response's fields are changed
void exchange_distrust_trailers(struct exchange *exchange);             // of the request: they tell nobody's identity
int exchange_fork_trailers(struct exchange *exchange);                  // before its trailers are changed
int exchange_want_whole_body(struct exchange *exchange);                // BRIDGE_OK, AGAIN, FULL
int exchange_take_body(struct exchange *exchange, struct slice *piece); // see bridge_body_take
int exchange_stream_begin(struct exchange *exchange, int status);
int exchange_stream_send(struct exchange *exchange, const char *data, uint32_t len);
int exchange_stream_end(struct exchange *exchange);
const char *exchange_id(struct exchange *exchange);

// A WebSocket's messages. `side`: 0 the client's, 1 the service's. What plugins ask for in a frame phase happens when
// it ends.
int exchange_close_websocket(struct exchange *exchange, int side, int code, struct slice reason);
// Ends the tunnels of the generation's routes that have `ended`: behind the messages that have begun, at the latest in
// `ms`; 0: now. NULL: all that are WebSockets and more than tunnels, of whatever route.
void exchange_end_tunnels(struct worker *worker, const struct generation *generation, int64_t ms);
int exchange_bound_websocket(struct exchange *exchange, int side, double most);

// The service has more to send than can be taken at this moment: its connection is to be left unread.
bool exchange_is_full(const struct exchange *exchange);
// The service does not keep up with the client; exchange_on_service_drained ends it.
void exchange_hold_client(struct exchange *exchange);

// Whether the client speaks gRPC (Content-Type: application/grpc; gRPC-Web is another protocol).
static inline bool exchange_is_grpc(const struct exchange *exchange) {
  return exchange->grpc;
}
// Whether it has ended while a plugin still waited: what that one changes from here on reaches nobody.
static inline bool exchange_is_over(const struct exchange *exchange) {
  return exchange->state >= EXCHANGE_LOG;
}
// Whether the response says this of the gateway (enum tells).
static inline bool exchange_tells(const struct exchange *exchange, enum tells what) {
  return !exchange->generation || (exchange->generation->limits.tells & what) != 0;
}
// The status of the response's head as the client gets it: what every stream_ops.head sends.
static inline int exchange_sent_status(const struct exchange *exchange) {
  return exchange->grpc_answer ? 200 : exchange->status;
}
// In the middle of a handshake: plugins of phase certificate. 0 goes on, 1 waits (the stream is told by
// stream_greeted), negative ends the handshake.
int exchange_greet(struct worker *worker, struct stream *stream, struct generation *generation);
