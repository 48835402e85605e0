// SPDX-License-Identifier: Apache-2.0
// All that Lua may call in C. Compiled by the core and, as this very text, given to ffi.cdef: so no macros, no includes
// (include <stdint.h> and <stdbool.h> before it), and nothing in it is declared a second time anywhere.
//
// Rules of every function here: it never enters Lua, never blocks, never jumps out. Exchanges and sockets cross as
// numbers (slot and generation packed in a double), checked in C: a stale one gives BRIDGE_STALE, never a crash.
// A function that answers BRIDGE_AGAIN has noted the running coroutine: Lua yields at once, and is resumed with
// (status, number) when the operation ends.
#pragma once

struct worker;

enum phase {
  PHASE_INIT_WORKER,
  PHASE_CONFIGURE,
  PHASE_CERTIFICATE,
  PHASE_PREREAD, // of TCP and TLS streams
  PHASE_REWRITE,
  PHASE_ACCESS,
  PHASE_BALANCER,
  PHASE_HEADER_FILTER,
  PHASE_BODY_FILTER,
  PHASE_RESPONSE,
  PHASE_LOG,
  PHASE_WS_CLIENT_FRAME,
  PHASE_WS_UPSTREAM_FRAME,
  // The same plugins' balancer and log for a stream, where what is HTTP's cannot be called
  PHASE_STREAM_BALANCER,
  PHASE_STREAM_LOG,
  PHASE_SERVICE_HEAD, // the service has answered, or failed to; before header_filter
  PHASE_PRODUCE,      // a record is about to enter a topic: run by Lua, inside access
  PHASE_CONSUME,      // one was read
  PHASE_COUNT
};

enum bridge_status {
  BRIDGE_OK = 0,
  BRIDGE_AGAIN = 1,    // yield now
  BRIDGE_NONE = 2,     // there is no such thing
  BRIDGE_SEVERAL = 3,  // there is more than one
  BRIDGE_STALE = -1,   // the exchange or socket has ended
  BRIDGE_INVALID = -2, // an argument is out of range, or CR, LF or NUL in a field
  BRIDGE_FULL = -3,    // a bound was reached (arena, headers, body)
  BRIDGE_CLOSED = -4,
  BRIDGE_TIMEOUT = -5,
  BRIDGE_FAILED = -6, // bridge_error says why
  BRIDGE_LATE = -7    // too late in the exchange: the head has been sent
};

// Bytes owned by C: for an exchange they live until it ends or the same thing is set again; copy (ffi.string) to keep.
struct bytes {
  const char *data;
  uint32_t len;
};

const char *bridge_version(void); // such as "0.1.0"

// Why the last BRIDGE_FAILED or BRIDGE_INVALID of this worker came about.
const char *bridge_error(struct worker *worker);

// ---- Exchange: texts and numbers --------------------------------------------------------------------------------

enum exchange_text {
  TEXT_ID,               // request id, 32 hex digits
  TEXT_METHOD,           // as the client sent it
  TEXT_SCHEME,           // "http" or "https", of the downstream connection
  TEXT_HOST,             // without port, lower case; from the target or Host
  TEXT_RAW_TARGET,       // request target as received
  TEXT_RAW_PATH,         // path as received, without query
  TEXT_PATH,             // canonical path: what was matched and is forwarded
  TEXT_QUERY,            // without "?"; BRIDGE_NONE when there is none
  TEXT_FORWARDED_SCHEME, // X-Forwarded-Proto from a trusted address, else TEXT_SCHEME
  TEXT_FORWARDED_HOST,
  TEXT_FORWARDED_PATH,
  TEXT_FORWARDED_PREFIX,
  TEXT_CLIENT_IP,      // of the connection
  TEXT_FORWARDED_IP,   // the client's by trusted_ips and X-Forwarded-For
  TEXT_SERVICE_METHOD, // may be set: what goes upstream
  TEXT_SERVICE_SCHEME, // may be set: "http" or "https"
  TEXT_SERVICE_PATH,   // may be set: path sent upstream
  TEXT_SERVICE_QUERY,  // may be set
  TEXT_SERVICE_HOST,   // host of the target (may be set by bridge_service_target)
  TEXT_TARGET_IP,      // address of the last try
  TEXT_TLS_VERSION,
  TEXT_TLS_CIPHER,
  TEXT_TLS_SNI,
  TEXT_TLS_CLIENT_CERTIFICATE, // PEM
  TEXT_ERROR,                  // why the gateway answered by itself, "" when it did not
  TEXT_REQUEST_LINE,           // for access logs
  TEXT_LOCAL_IP,               // that the client connected to; BRIDGE_NONE without one, and once the client has left
  TEXT_COUNT
};

enum exchange_number {
  NUMBER_HTTP_VERSION, // 1.0, 1.1, 2
  NUMBER_PORT,         // local port of the connection
  NUMBER_FORWARDED_PORT,
  NUMBER_CLIENT_PORT,
  NUMBER_STATUS,          // of the response to the client; may be set up to header_filter
  NUMBER_SERVICE_STATUS,  // as the service sent it; NaN when it did not
  NUMBER_RESPONSE_SOURCE, // 0: exit by a plugin, 1: service, 2: error of the gateway
  NUMBER_REQUEST_BYTES,   // head and body as received
  NUMBER_RESPONSE_BYTES,  // head and body as sent
  NUMBER_RESPONSE_BODY_BYTES,
  NUMBER_STARTED_US, // since 1970
  NUMBER_ELAPSED_US, // since the first byte of the request
  NUMBER_GATEWAY_US, // spent in the gateway before the request went upstream (Kong's latencies.kong)
  NUMBER_SERVICE_US, // from sending upstream to the first byte of the response (latencies.proxy); NaN
  NUMBER_RECEIVE_US, // from the first byte of the response to its last; NaN
  NUMBER_ROUTE,      // index in the generation, 0: none
  NUMBER_SERVICE,    // index in the generation, 0: none
  NUMBER_GENERATION,
  NUMBER_TARGET_PORT,
  NUMBER_TRIES,
  NUMBER_CONNECT_TIMEOUT_MS, // may be set, like the next three
  NUMBER_SEND_TIMEOUT_MS,
  NUMBER_READ_TIMEOUT_MS,
  NUMBER_RETRIES,
  NUMBER_CONTENT_LENGTH,      // of the request; NaN when chunked or none
  NUMBER_HEAD_SENT,           // 1 when the response head is on its way
  NUMBER_CONNECTION_REQUESTS, // on this connection so far, this one included
  NUMBER_TLS,                 // 1 when the downstream connection is TLS
  NUMBER_CONNECTION,          // which connection of this worker it is, from 1
  NUMBER_BUFFERED_MOST,       // bytes of a body that may be held for a plugin
  NUMBER_GRPC_STATUS,         // as the service sent it, in its head or behind the content; NaN: not a call, or none yet
  NUMBER_BROKEN,              // 1 when the service's response broke off in the middle
  NUMBER_FROM_PEER,           // 1: another worker of this gateway asks, see bridge_peers_open
  NUMBER_HEDGED, // 0: no second try was made beside the first; 1: for want of budget; 2: it lost; 3: it won
  NUMBER_COUNT
};

int bridge_text(struct worker *worker, double exchange, int what, struct bytes *out);
int bridge_text_set(struct worker *worker, double exchange, int what, const char *data, uint32_t len);
double bridge_number(struct worker *worker, double exchange, int what); // NaN: stale or no such number
int bridge_number_set(struct worker *worker, double exchange, int what, double value);

// Group `index` (from 1) of the route's regex path; bridge_capture_name gives the names, from 0.
int bridge_capture(struct worker *worker, double exchange, uint32_t index, struct bytes *out);
int bridge_capture_name(struct worker *worker, double exchange, uint32_t index, struct bytes *name, uint32_t *group);

// ---- Exchange: fields ---------------------------------------------------------------------------------------------

enum message {
  MESSAGE_REQUEST,          // from the client; what a plugin changes goes upstream
  MESSAGE_RESPONSE,         // to the client; before the service answered: fields to add to whatever answer comes
  MESSAGE_SERVICE_RESPONSE, // as the service sent them; read only
  // Fields behind the content (RFC 9110 6.5).
  MESSAGE_REQUEST_TRAILERS,  // once the whole request has come; read only
  MESSAGE_RESPONSE_TRAILERS, // to the client; before the service's have come: fields to put over them
  MESSAGE_SERVICE_TRAILERS,  // as the service sent them, once they have come; read only
  MESSAGE_EARLY_HINTS,       // what the next bridge_early_hints sends
  MESSAGE_STORED_RESPONSE    // that bridge_cache_find has found; read only
};

uint32_t bridge_header_count(struct worker *worker, double exchange, int message);
int bridge_header_at(struct worker *worker, double exchange, int message, uint32_t index, struct bytes *name,
                     struct bytes *value);
// The value of the `nth` (from 0) field of that name.
int bridge_header_get(struct worker *worker, double exchange, int message, const char *name, uint32_t name_len,
                      uint32_t nth, struct bytes *out);
// Replaces every field of that name by one.
int bridge_header_set(struct worker *worker, double exchange, int message, const char *name, uint32_t name_len,
                      const char *value, uint32_t value_len);
int bridge_header_add(struct worker *worker, double exchange, int message, const char *name, uint32_t name_len,
                      const char *value, uint32_t value_len);
int bridge_header_clear(struct worker *worker, double exchange, int message, const char *name, uint32_t name_len);
// The same, and every field whose name a service may take for that one, such as X_Y for X-Y.
int bridge_header_clear_alike(struct worker *worker, double exchange, int message, const char *name, uint32_t name_len);
// What the service is told of the client in the fields that the gateway writes itself: this in place of its own; NULL:
// nothing. What plugins see of the client stays as it is.
enum forwarded {
  FORWARDED_FOR,
  FORWARDED_REAL_IP,
  FORWARDED_PROTO,
  FORWARDED_HOST,
  FORWARDED_PORT,
  FORWARDED_PATH,
  FORWARDED_PREFIX,
  FORWARDED_COUNT
};
int bridge_forwarded_set(struct worker *worker, double exchange, int which, const char *value, uint32_t len);
// Takes out of the request every field that a service may take for an identity the gateway vouches for (Kong's
// X-Consumer-*, X-Credential-*, X-Anonymous-Consumer, X-Authenticated-*), in any spelling, and out of its trailers.
int bridge_identity_clear(struct worker *worker, double exchange);
// Whom a request was authenticated as. What has no data is not told.
struct identity {
  struct bytes consumer_id, consumer_custom_id, consumer_username, credential;
  bool anonymous;
};
// The same, and then tells the service this, in Kong's fields.
int bridge_identity_set(struct worker *worker, double exchange, const struct identity *identity);

// A name of fields that is used again and again: checked, copied and hashed once for the life of the worker. Gives its
// number; 0: it is no name of a field, it is long, or there are too many.
uint32_t bridge_field_name(struct worker *worker, const char *name, uint32_t len);
// As bridge_header_get, set and add. A number is written as Lua writes it.
int bridge_field_get(struct worker *worker, double exchange, int message, uint32_t name, uint32_t nth,
                     struct bytes *out);
// The value of the only field of that name; SEVERAL when it is not the only one, and then the first's.
int bridge_field_only(struct worker *worker, double exchange, int message, uint32_t name, struct bytes *out);
int bridge_field_set(struct worker *worker, double exchange, int message, uint32_t name, const char *value,
                     uint32_t value_len);
int bridge_field_set_number(struct worker *worker, double exchange, int message, uint32_t name, double value);
int bridge_field_add(struct worker *worker, double exchange, int message, uint32_t name, const char *value,
                     uint32_t value_len);

// ---- Exchange: its trace ------------------------------------------------------------------------------------------------

// Ids in hex digits.
struct trace_ids {
  char id[32], root[16], next[16], parent[16]; // the trace; the gateway's span, the one that the service is told, the
                                               // caller's
  bool has_parent;
  bool sampled;
  uint8_t flags; // of the caller's context
};

struct trace_options {
  uint32_t traceparent;   // the number of W3C's field
  const uint32_t *others; // those of other formats that are looked for
  uint32_t other_count;
  bool extract; // W3C's is looked for
  bool follow;  // what the caller samples is sampled, whatever the rate
  double rate;  // 0 to 1
};

// Begins the trace of a request that carries W3C's context or none, and tells the service in W3C's format. NONE: it has
// another format's; DIFFERS: it has been begun.
int bridge_trace_begin(struct worker *worker, double exchange, const struct trace_options *options,
                       struct trace_ids *out);
int bridge_trace(struct worker *worker, double exchange, struct trace_ids *out); // OK or NONE

// ---- Exchange: bodies, answers, the service ------------------------------------------------------------------------

// The whole body, buffered: the client's in access (AGAIN while it arrives; FULL past the limit), the response's in
// phase response, and in header_filter when it has been gathered; LATE else.
int bridge_body(struct worker *worker, double exchange, int message, struct bytes *out);
// The next piece of the request's content in access, which lives until the next call: for a plugin that answers by
// itself, perhaps while it streams its answer. AGAIN: yield, then call again unless resumed with another status than OK.
// NONE: that was all; FULL: it is refused (too large, late, its framing is broken); LATE: it has been asked for whole.
int bridge_body_take(struct worker *worker, double exchange, struct bytes *out);
// The status that tells a client why its content is refused: 413, 408 (late), 400 (its framing is broken); 0: it is not.
int bridge_body_refused(struct worker *worker, double exchange);
// Replaces a body; Content-Length follows.
int bridge_body_set(struct worker *worker, double exchange, int message, const char *data, uint32_t len);
// No more content of the request than that is taken: what goes beyond is answered 413, in the middle too. OK; FULL when
// more has come already, or is announced.
// In access: the request's content, up to `most` bytes, is to be kept for a later phase, while it goes its way.
int bridge_body_keep(struct worker *worker, double exchange, double most);
// What was kept: OK; NONE: not all of it has come, or nobody asked; FULL: it was larger.
int bridge_body_kept(struct worker *worker, double exchange, struct bytes *out);
int bridge_body_limit(struct worker *worker, double exchange, double most);
// Before the service is called: its response will be gathered whole, up to the limit, before header_filter runs.
int bridge_body_gather(struct worker *worker, double exchange);
// Before the service is called: it is asked for a response without a content coding, whatever the client accepts.
int bridge_request_identity(struct worker *worker, double exchange);
// In header_filter: the response's content goes to the client through a coding: 0 gzip, 1 br, 2 zstd, with its level.
// INVALID: no such coding or level; LATE: the head has gone, or there is a coding already.
int bridge_response_encode(struct worker *worker, double exchange, int coding, int level);
int bridge_grpc_status(int http_status); // the status of gRPC's that an answer of the gateway with this one means
// The answer comes from the gateway: no service is called. Fields: MESSAGE_RESPONSE. Body bytes are copied.
int bridge_exit(struct worker *worker, double exchange, int status, const char *body, uint32_t len);
// Like bridge_exit, but the body is the gateway's error answer (JSON, HTML, XML or text by Accept) with this message.
int bridge_exit_error(struct worker *worker, double exchange, int status, const char *message, uint32_t len);
// What a client that speaks gRPC is told in place of the body of bridge_exit, of which it would see nothing.
int bridge_exit_message(struct worker *worker, double exchange, const char *message, uint32_t len);
// The exchange ends here without (the rest of) a response, and its client is to see that: when the running phase does.
int bridge_break_off(struct worker *worker, double exchange);
// Sends what has been put into MESSAGE_EARLY_HINTS as a response 103 (RFC 8297). NONE: this client takes none.
int bridge_early_hints(struct worker *worker, double exchange);
// A streamed answer (server-sent events and the like): begin sends the head, then AGAIN of send is back-pressure.
int bridge_stream_begin(struct worker *worker, double exchange, int status);
int bridge_stream_send(struct worker *worker, double exchange, const char *data, uint32_t len);
int bridge_stream_end(struct worker *worker, double exchange);
// CLOSED when the client has left: for who has nothing to send for now.
int bridge_stream_open(struct worker *worker, double exchange);

// ---- Channels: streamed answers that get what one coroutine writes, and need none of their own (channel.h) -------------

struct channel_options {
  const struct bytes *labels; // of each slot, with what stands between it and an offset in ids: "0/"
  const double *positions;    // of the next record in each
  uint32_t slots;
  uint32_t messages, bytes; // that are kept
};

struct channel_message {
  struct bytes text, key; // of an event but for its id; `data` NULL: no key
  double offset;
  int32_t slot; // -1: it stands at no position, and is for everybody
  bool has_id;
};

struct channel_seat {
  const double *positions; // what it has had; NULL: it begins now
  struct bytes key;        // of the records that it wants; `data` NULL: all
  bool ahead;              // positions may lie before those of the channel, which will get there
};

// Whose client did not take what left the window meanwhile.
struct channel_fallen {
  double exchange;
  struct bytes key; // as it had joined with; lives until the next bridge_channel_behind
};

double bridge_channel_new(struct worker *worker, const struct channel_options *options); // 0: there is no room
// What follows gives STALE when the channel has been closed.
int bridge_channel_put(struct worker *worker, double channel, const struct channel_message *message);
// A slot's next record will be that one: records in between are for nobody. Backwards: the log has been cut.
int bridge_channel_move(struct worker *worker, double channel, uint32_t slot, double offset);
double bridge_channel_position(struct worker *worker, double channel, uint32_t slot);
// What has been put goes out, when the caller waits next.
int bridge_channel_flush(struct worker *worker, double channel);
// Some have not been sent it yet although they would take it.
bool bridge_channel_busy(struct worker *worker, double channel);
// The streamed answer of the exchange goes on from the channel, also when the phase has ended. NONE: the window does not
// hold all that comes behind its positions. CLOSED: the client has left.
int bridge_channel_join(struct worker *worker, double channel, double exchange, const struct channel_seat *seat);
// OK: it is the caller's again. NONE: there is none now.
int bridge_channel_behind(struct worker *worker, double channel, struct channel_fallen *out, double *positions);
// AGAIN: resumed when somebody falls behind or the last one leaves, else with TIMEOUT.
int bridge_channel_wait(struct worker *worker, double channel, double seconds);
int32_t bridge_channel_seats(struct worker *worker, double channel); // -1: it has been closed
int bridge_channel_close(struct worker *worker, double channel);     // its answers end behind what has been put

// ---- A WebSocket whose other end is the plugin itself, in access; a coroutine may send while another receives ---------

struct talk_message {
  int32_t opcode;    // 1 text, 2 binary
  struct bytes data; // live until the next bridge_talk_receive
};

// Answers the handshake, with the fields of MESSAGE_RESPONSE: AGAIN, then resumed with OK. INVALID: the request is none.
int bridge_talk_accept(struct worker *worker, double exchange);
// `opcode` also 9 (ping) and 10. AGAIN: back-pressure. INVALID: a text must be UTF-8, a control frame at most 125 bytes.
int bridge_talk_send(struct worker *worker, double exchange, int opcode, const char *data, uint32_t len);
// OK: a message. AGAIN: resumed with OK to ask again, or with TIMEOUT. NONE: `seconds` is 0, and there is none.
int bridge_talk_receive(struct worker *worker, double exchange, double seconds, struct talk_message *out);
int bridge_talk_close(struct worker *worker, double exchange, int code, const char *reason, uint32_t len);
int bridge_talk_end_code(struct worker *worker, double exchange); // what the client has closed with; 0: it has not
bool bridge_talk_asked(struct worker *worker, double exchange);   // whether the request asks for a WebSocket

// A WebSocket whose messages pass through frame phases. `side`: 0 the client's, 1 the service's. What the side is told
// when the running frame phase ends, which then closes both; one that nothing is asked for gets 1000 (client) or 1001.
int bridge_websocket_close(struct worker *worker, double exchange, int side, int code, const char *reason,
                           uint32_t len);
// Bytes that a message of that side may have.
int bridge_websocket_bound(struct worker *worker, double exchange, int side, double most);

// Whether a text message or the reason of a close may be that, and whether a close may have that code.
int bridge_websocket_is_text(const char *data, uint32_t len);
int bridge_websocket_is_code(int code);

// Where this exchange goes: host (name or address) and port.
int bridge_service_target(struct worker *worker, double exchange, const char *host, uint32_t len, uint32_t port);
// Use the upstream of this name; NONE when the generation has none.
int bridge_service_upstream(struct worker *worker, double exchange, const char *name, uint32_t len);
// Call another service of the generation (its index) than the route's: all that it says takes the place of what the
// route's does, and of what plugins have said before of target, protocol and timeouts.
int bridge_service_use(struct worker *worker, double exchange, uint32_t service);
// A try of the exchange, from 0 in their order: those that failed (the first 32 of them), then the one that did not.
struct try_info {
  struct bytes ip; // none when its name was not found
  uint32_t port;
  uint32_t status; // what the client would have been told; 0: it did not fail
  bool answered;   // by the service, which could not serve
  double begun_us; // since 1970
  double endpoint; // 0: none, or its upstream is not watched
};
int bridge_try(struct worker *worker, double exchange, uint32_t index, struct try_info *out); // OK or NONE
// A budget (see budget.h) of that name, of this worker; as often as wanted. `spent` and `refused` are handles of named
// counters, or 0. Its number, 0: there are too many.
double bridge_budget(struct worker *worker, const char *name, uint32_t len, double share, double per_second,
                     double window_s, double spent, double refused);
// Retries of this exchange are bound by the budget; the request counts.
int bridge_service_retry_budget(struct worker *worker, double exchange, double budget);
// A second try, of another target, begins where the first has not been answered in so many seconds, and the budget
// allows it: of requests that may come twice and have no content. The request counts in the budget.
int bridge_service_hedge(struct worker *worker, double exchange, double delay_s, double budget);
int bridge_service_tls_verify(struct worker *worker, double exchange, int verify);
int bridge_service_tls_depth(struct worker *worker, double exchange, int depth); // intermediate certificates allowed
// The client's certificate (its chain behind it) towards the service. INVALID: bridge_error says what is wrong with it.
int bridge_service_tls_pair(struct worker *worker, double exchange, const char *certificate_pem, const char *key_pem);

// Presents this certificate (its chain behind it) in the handshake that phase certificate is about.
int bridge_tls_certificate(struct worker *worker, double exchange, const char *certificate_pem, const char *key_pem);
// The client gets nothing to resume its session by.
int bridge_tls_forget_session(struct worker *worker, double exchange);
// The client is asked for a certificate; any is taken, and none. `authorities` (PEM; NULL: none): whose names it is told,
// so that it can choose. INVALID: there is no certificate in it.
int bridge_tls_ask_client(struct worker *worker, double exchange, const char *authorities, uint32_t len);

// ---- Waiting, coroutines, time ---------------------------------------------------------------------------------------

// Lua's memory may grow by so much while the running coroutine's job runs, garbage included; past it, the job is stopped
// as it is past its CPU budget (looked at as often as that). 0: by as much as it likes.
int bridge_limit_memory(struct worker *worker, uint32_t kilobytes);
int bridge_sleep(struct worker *worker, double seconds);
// The number of the running coroutine, to be woken by bridge_wake in a later turn of the loop (status, number).
double bridge_self(struct worker *worker);
int bridge_wait(struct worker *worker, double seconds); // until woken; BRIDGE_TIMEOUT after that long
int bridge_wake(struct worker *worker, double coroutine, int status, double number);
// Fires once: the VM runs timer `id` (a number Lua chose) in a coroutine of its own.
int bridge_timer(struct worker *worker, double id, double seconds);
int bridge_timer_cancel(struct worker *worker, double id);
// While anybody holds the worker it does not end before the limit of its drain: `delta` 1 takes hold, -1 lets go.
void bridge_hold(struct worker *worker, int delta);
double bridge_now(struct worker *worker);        // seconds since 1970, as of this turn
double bridge_mono(struct worker *worker);       // seconds, monotonic, as of this turn
double bridge_mono_fresh(struct worker *worker); // the same, read anew: for measuring slices
double bridge_mono_exact(struct worker *worker); // the same for durations: a clock that a spec moves is let stand
int bridge_random(struct worker *worker, char *out, uint32_t len); // cryptographic, or seeded by a spec
int bridge_worker_id(struct worker *worker);                       // from 1
int bridge_worker_count(struct worker *worker);
// Has this worker answer HTTP of the other workers, at bridge_peer_path of its own id: requests with NUMBER_FROM_PEER.
// Opening twice is no error. NONE: there is no state_dir.
int bridge_peers_open(struct worker *worker);
// "unix:/path" of worker `id`, as much as fits.
void bridge_peer_path(struct worker *worker, int id, char *out, uint32_t size);
void bridge_log(struct worker *worker, int level, const char *message, const char *const *pairs, uint32_t pair_count);

// ---- Client sockets for http, redis and the like -----------------------------------------------------------------

struct socket_options {
  double connect_timeout_s, timeout_s; // the second for every send and receive
  const char *tls_name;                // NULL: plain; else SNI and the name to verify
  const char *alpn;                    // protocols to offer, such as "h2"; NULL: none
  bool tls_verify;
  const char *ca_pem, *certificate_pem, *key_pem; // NULL: system's, none, none
};

enum socket_receive {
  RECEIVE_SOME,  // whatever has come, up to `limit`
  RECEIVE_EXACT, // `limit` bytes
  RECEIVE_LINE   // up to LF (stripped with the CR before it), at most `limit` bytes
};

// Starts to connect to host (name, address, or "unix:/path") and port. AGAIN always or an error; resumed with (status, socket).
int bridge_socket_connect(struct worker *worker, const char *host, uint32_t len, uint32_t port,
                          const struct socket_options *options);
// TLS from now on, on a plain connection with nothing unread (behind a proxy's CONNECT). Resumed as by connect.
int bridge_socket_tls(struct worker *worker, double socket, const struct socket_options *options);
int bridge_socket_send(struct worker *worker, double socket, const char *data, uint32_t len);
// OK with bytes that live until the next call on this socket; AGAIN: yield, then call again; CLOSED at the end.
int bridge_socket_receive(struct worker *worker, double socket, int mode, uint32_t limit, struct bytes *out);
int bridge_socket_timeout(struct worker *worker, double socket, double seconds); // of each send and receive
// The moment, in seconds of bridge_mono, past which no send or receive waits, however much comes meanwhile; 0: none.
int bridge_socket_deadline(struct worker *worker, double socket, double seconds);
int bridge_socket_alive(struct worker *worker, double socket); // OK: open and nothing unread, fit for reuse
int bridge_socket_close(struct worker *worker, double socket);

// Sends a datagram (UDP, or to a local socket) to an address or "unix:/path"; names are the caller's to resolve. OK;
// INVALID: no address; FULL: the kernel has no room now; FAILED: bridge_error says why.
int bridge_datagram_send(struct worker *worker, const char *host, uint32_t host_len, uint32_t port, const char *data,
                         uint32_t len);

// ---- Generations: how Lua builds what the core runs ------------------------------------------------------------------

enum {
  PROTOCOL_HTTP = 1,
  PROTOCOL_HTTPS = 2,
  PROTOCOL_GRPC = 4,
  PROTOCOL_GRPCS = 8,
  PROTOCOL_WS = 16,
  PROTOCOL_WSS = 32,
  PROTOCOL_TCP = 64,
  PROTOCOL_TLS = 128,
  PROTOCOL_TLS_PASSTHROUGH = 256,
  PROTOCOLS_STREAM = 448 // the three together
};

struct service_conf {
  const char *name; // NULL: none
  const char *host; // a name, an address, or the name of an upstream
  uint32_t port;
  const char *path; // NULL: none
  bool tls;         // protocol https, grpcs, http2s
  bool http2;       // protocol grpc, grpcs, http2, http2s
  bool tls_verify;
  int tls_verify_depth;                                // -1: not given
  const char *ca_pem;                                  // NULL: the system's
  const char *client_certificate_pem, *client_key_pem; // NULL: none
  uint32_t connect_timeout_ms, send_timeout_ms, read_timeout_ms, retries;
  uint32_t proxy_protocol; // version that a stream to it begins with, 0: none
};

struct route_conf {
  const char *name;   // NULL: none
  uint32_t service;   // index from bridge_gen_service, 0: none
  uint32_t phases;    // bit mask of 1 << enum phase that have plugins
  uint32_t protocols; // PROTOCOL_*
  int32_t regex_priority;
  double created_at;
  uint32_t https_redirect_status; // 426, 301, 302, 307, 308
  bool strip_path, preserve_host, path_handling_v1;
  bool identity; // plugins read its responses: services are asked to use no content coding
  bool inner;    // for calls (bridge_call): no client's request is matched by it; behind all that are not
};

enum route_match {
  MATCH_METHOD,
  MATCH_HOST, // may hold one "*" at either end, and a port
  MATCH_PATH, // prefix, or regex behind "~"
  MATCH_SNI,
  MATCH_HEADER_NAME,  // the values that follow belong to it
  MATCH_HEADER_VALUE, // "~*" in front: regex
  MATCH_SOURCE,       // of streams: address, range or "*", a space, port or 0
  MATCH_DESTINATION
};

// A new, empty generation being built; `revision` is the snapshot's. Gives its id (above 0).
int bridge_gen_new(struct worker *worker, double revision);
int bridge_gen_service(struct worker *worker, int gen, const struct service_conf *conf); // index from 1, or negative
int bridge_gen_route(struct worker *worker, int gen, const struct route_conf *conf);     // index from 1, or negative
int bridge_gen_route_match(struct worker *worker, int gen, uint32_t route, int kind, const char *value, uint32_t len);
// Upstream entity: a name that services' hosts refer to.
int bridge_gen_upstream(struct worker *worker, int gen, const char *name, const char *host_header);
int bridge_gen_target(struct worker *worker, int gen, uint32_t upstream, const char *host, uint32_t port,
                      uint32_t weight);
// The order in which targets (indexes from 1) are tried, walked round by the core without entering Lua: a policy that
// can say its choice beforehand (round-robin) gives this. Without one, or with PHASE_BALANCER, Lua picks each time.
int bridge_gen_schedule(struct worker *worker, int gen, uint32_t upstream, const uint32_t *targets, uint32_t count);
int bridge_gen_certificate(struct worker *worker, int gen, const char *certificate_pem, const char *key_pem,
                           const char *certificate_alt_pem, const char *key_alt_pem);       // index from 1
int bridge_gen_sni(struct worker *worker, int gen, uint32_t certificate, const char *name); // "*", "*.x", "x.*", "x"
// Phases that plugins without a route use: `any` for an exchange that no route matched, rewrite and certificate for all.
int bridge_gen_phases(struct worker *worker, int gen, uint32_t any);

// What a response tells of the gateway besides: bits of the setting "headers", Kong's names behind them.
enum tells {
  TELL_SERVER = 1,            // Server, of answers by the gateway
  TELL_VIA = 2,               // Via, of a service's responses
  TELL_PROXY_LATENCY = 4,     // X-Kong-Proxy-Latency
  TELL_UPSTREAM_LATENCY = 8,  // X-Kong-Upstream-Latency
  TELL_RESPONSE_LATENCY = 16, // X-Kong-Response-Latency
  TELL_UPSTREAM_STATUS = 32,  // X-Kong-Upstream-Status
  TELL_REQUEST_ID = 64,       // X-Kong-Request-Id
  TELL_SERVER_TIMING = 128    // Server-Timing
};

// Limits and settings that may change with a reload.
int bridge_gen_setting(struct worker *worker, int gen, const char *name, uint32_t len, double value);
// A line for each request goes to this file, as text or JSON.
int bridge_gen_access_log(struct worker *worker, int gen, const char *path, bool json);
int bridge_gen_trusted_ip(struct worker *worker, int gen, const char *cidr, uint32_t len);
// Compiles the next piece (at most about `budget_us`): AGAIN while there is more, without noting the coroutine.
int bridge_gen_compile(struct worker *worker, int gen, double budget_us);
int bridge_gen_live(struct worker *worker, int gen); // swap: exchanges from now on use it
// Of an older generation: how many tunnels it has open; that those of a route are to end; and ends them, as the live
// one's `websocket_on_reload` says.
uint32_t bridge_gen_tunnels(struct worker *worker, int gen);
int bridge_gen_route_ended(struct worker *worker, int gen, uint32_t route);
int bridge_gen_end_tunnels(struct worker *worker, int gen);
int bridge_gen_drop(struct worker *worker, int gen); // one that never went live

// ---- Targets: which take requests, shared by all workers ----------------------------------------------------------------

// An endpoint is one address (ip and port) of an upstream's targets. It takes no requests while there is any reason for
// that; each reason is set and taken back by whoever it belongs to.
enum endpoint_reason {
  REASON_CHECKS = 1, // active and passive health checks
  REASON_BREAKER = 2 // a circuit breaker is open
};

enum endpoint_event { ENDPOINT_SUCCESS, ENDPOINT_TCP_FAILURE, ENDPOINT_HTTP_FAILURE, ENDPOINT_TIMEOUT };

// Among the addresses of one target, of those that take requests.
enum spread { SPREAD_TURNS, SPREAD_LOAD, SPREAD_LATENCY, SPREAD_HASH };

// How many in a row change an endpoint's health; 0: none do.
struct check_limits {
  uint8_t successes, tcp_failures, http_failures, timeouts;
};

struct upstream_watch {
  uint32_t heeds; // bits of enum endpoint_reason that count here
  uint32_t
      checks; // tells one configuration of health checks from another: with another one, health begins anew. 0: none
  uint32_t spread;  // enum spread
  double threshold; // percent of the weight that must take requests, or the upstream takes none
  double slow_start_s;
  struct check_limits passive, active;
  const uint16_t *healthy, *unhealthy; // statuses of responses, for passive checks
  uint32_t healthy_count, unhealthy_count;
};

// What a policy chooses by.
struct target_state {
  bool usable; // choose among these: they take requests, and this exchange has not tried them (else: has, too)
  double weight, in_flight, latency_us; // of all workers; 0: no latency is known
};

struct endpoint_info {
  const char *upstream, *target, *address; // "api", "api.example:80", "10.0.0.1:80"; static
  uint32_t out;                            // bits of enum endpoint_reason, 0: it takes requests
  double since_s;                          // how long that has been so
  double in_flight, latency_us;
};

// Before the generation goes live, when the upstream has its targets: whether these are well matters from now on.
// Again: reasons are added, the rest is as it was. OK, or FULL.
int bridge_gen_watch(struct worker *worker, int gen, uint32_t upstream, const struct upstream_watch *conf);
// The same for a service that goes to a host, by its index; its endpoints belong to an upstream of that host's name.
int bridge_gen_watch_service(struct worker *worker, int gen, uint32_t service, uint32_t heeds);
// Health checks of that upstream are no more: what they found is forgotten.
void bridge_endpoint_forget(struct worker *worker, int gen, const char *upstream, uint32_t len);
// The addresses that a target (from 1) has now, as texts with their ports; `endpoints` gets a number for each.
int bridge_target_bind(struct worker *worker, int gen, uint32_t upstream, uint32_t target, const char *const *texts,
                       const uint32_t *ports, uint32_t count, double *endpoints);

// Whether the upstream of this name has a target that takes requests: OK; CLOSED: it has none; NONE: no such upstream.
int bridge_upstream_takes(struct worker *worker, double exchange, const char *name, uint32_t len);
// For policies: the targets in the order of their making, until the next call for this upstream; how many there are,
// 0 when none takes requests.
uint32_t bridge_target_states(struct worker *worker, double exchange, int gen, uint32_t upstream,
                              const struct target_state **out);
// The target (from 1, 0: none) that this text prefers; each text has its own order among the targets, by their weight.
uint32_t bridge_target_by_hash(struct worker *worker, double exchange, int gen, uint32_t upstream, const char *text,
                               uint32_t len);
// Among the addresses of its target, the exchange goes to the one that this text prefers (SPREAD_HASH).
void bridge_target_session(struct worker *worker, double exchange, const char *text, uint32_t len);

// The endpoint of the exchange's last try; 0: none, or its upstream is not watched.
double bridge_endpoint(struct worker *worker, double exchange);
// The endpoints of an upstream (of all, when the name is empty): begin with *cursor 0; 0: the end.
double bridge_endpoint_next(struct worker *worker, const char *upstream, uint32_t len, double *cursor);
int bridge_endpoint_info(struct worker *worker, double endpoint, struct endpoint_info *out); // OK or NONE
// Sets a reason for so many seconds (0: until it is taken back), or takes it back, and logs it with `why`. OK; NONE: that
// changed nothing, but for the time.
int bridge_endpoint_set(struct worker *worker, double endpoint, uint32_t reason, bool out, double seconds,
                        const char *why);
// Sets REASON_BREAKER for so many seconds. Behind them it stays, but for one request in each `probe_s`; taken back by
// bridge_endpoint_set. The same results.
int bridge_endpoint_break(struct worker *worker, double endpoint, double seconds, double probe_s, const char *why);
// Active checks. Claim: 0 for one worker when a check is due, and the next one is due in `lease_s`, unless _check_in says
// otherwise; else the seconds until one is due. NaN: there is no such endpoint.
double bridge_endpoint_claim(struct worker *worker, double endpoint, double lease_s);
void bridge_endpoint_check_in(struct worker *worker, double endpoint, double seconds);
void bridge_endpoint_count(struct worker *worker, int gen, uint32_t upstream, double endpoint, int event,
                           const char *why);

// ---- Process: the master and the board ----------------------------------------------------------------------------------

enum { BOARD_PLUGINS = 256, BOARD_NAME_BYTES = 48, BOARD_STATUSES = 6, BOARD_LATENCIES = 96 };

// One a worker, in memory shared with the master: what the watchdog and `sluice status` read without asking.
struct board {
  int64_t heartbeat_us; // monotonic, written once per turn of the loop
  int32_t pid;
  uint32_t generation;
  uint64_t exchanges;   // begun so far
  uint64_t connections; // downstream connections accepted so far
  int64_t connections_open;
  int64_t exchanges_open;
  uint64_t streams; // TCP and TLS streams begun so far; each is an exchange
  int64_t streams_open;
  uint64_t stream_bytes_in, stream_bytes_out; // from and to their clients
  int64_t longest_turn_us;                    // of the loop, since the last generation began to be built
  int64_t recent_turn_us, past_turn_us;       // the longest of this second, and of the one before
  int64_t recent_since_us;
  uint32_t running; // index of the plugin whose code runs now, 0: none
  uint32_t plugin_count;
  uint64_t plugin_calls[BOARD_PLUGINS];
  uint64_t plugin_errors[BOARD_PLUGINS];
  uint64_t plugin_stops[BOARD_PLUGINS];  // calls ended for passing the CPU budget
  uint64_t plugin_cpu_us[BOARD_PLUGINS]; // by samples of the profiler
  char plugin_names[BOARD_PLUGINS][BOARD_NAME_BYTES];
  uint64_t statuses[BOARD_STATUSES];   // requests by the first digit of what their client was told, 0: nothing
  uint64_t latencies[BOARD_LATENCIES]; // requests by how long they took: four steps to each doubling of microseconds
};

struct board *bridge_board(struct worker *worker);
// Sends one line to the master: "live 7", "failed 7 {json}", "status 3 {json}".
int bridge_report(struct worker *worker, const char *line, uint32_t len);

// ---- Calls: requests that plugins make of a service, through its plugins, its balancer and its tries -------------------

struct call_options {
  int generation; // the running one, whose
  uint32_t route; // index the call goes by
  struct bytes method, target;
  const struct bytes *headers; // name, value, name, value ...; Host among them
  uint32_t header_count;       // pairs
  struct bytes body;           // data NULL: none
  uint32_t max_body;           // bytes of the response's body that are kept
  bool still;                  // nothing is sent: the exchange is there for plugins to look at records in
};

struct call_result {
  int status;      // 0: there was no response
  bool by_service; // else it is the gateway's own answer
  bool failed;     // the response broke off
  bool truncated;  // its body was longer than `max_body`
  struct bytes body;
};

// The number of a call that is on its way from the next turn on, to be ended by bridge_call_end; STALE: another generation
// runs; INVALID; FULL.
double bridge_call(struct worker *worker, const struct call_options *options);
double bridge_call_exchange(struct worker *worker, double call);          // 0: it has ended
int bridge_call_wait(struct worker *worker, double call, double seconds); // OK: it has ended; AGAIN, then OK or TIMEOUT
int bridge_call_result(struct worker *worker, double call, struct call_result *out);
int bridge_call_field(struct worker *worker, double call, uint32_t index, struct bytes *name, struct bytes *value);
int bridge_call_end(struct worker *worker, double call); // one that has not ended is broken off

// ---- Kafka -----------------------------------------------------------------------------------------------------------

enum kafka_status {
  KAFKA_GAP = 3,         // records were skipped: they left the window, or the broker, before this reader had read them
  KAFKA_REBALANCE = 4,   // partitions were taken from this member of a group
  KAFKA_EXPIRED = 5,     // a record was dropped when its time was over: it was not sent, and will not be
  KAFKA_TOO_LARGE = 6,   // a record was not queued: it is larger than message.max.bytes of the cluster
  KAFKA_NO_PARTITION = 7 // nor was this one: its topic has no such partition
};

enum { KAFKA_LATENCY_BUCKETS = 15 };
enum { KAFKA_LATEST = -1, KAFKA_EARLIEST = -2, KAFKA_NOWHERE = -3, KAFKA_ANY_PARTITION = -1 };

// A record to produce. A `data` of NULL is Kafka's null, which differs from the empty text.
struct kafka_message {
  const char *cluster, *topic;
  struct bytes key, value;
  const struct bytes *headers; // name, value, name, value...
  uint32_t header_count;       // pairs
  int32_t partition;           // KAFKA_ANY_PARTITION: by key, as Java's clients choose
  double timestamp_ms;         // 0: now
  double timeout_s;            // how long the coroutine waits; 0: message.timeout.ms of the cluster
  double expires_s;            // dropped if it was not sent by then; 0: as message.timeout.ms of the cluster says
};

// What became of a record.
struct kafka_result {
  int32_t status; // BRIDGE_OK; BRIDGE_TIMEOUT (it may yet arrive); KAFKA_EXPIRED; BRIDGE_FAILED
  int32_t partition;
  double offset;    // -1: unknown (acks=0)
  const char *name; // of the error as Kafka has it ("MSG_SIZE_TOO_LARGE"), "" without one; static, like `text`
  const char *text;
};

// A record that was read. Its bytes live until the next call on the same reader.
struct kafka_record {
  const char *topic;
  struct bytes key, value;
  const struct bytes *headers; // name, value, name, value...
  uint32_t header_count;       // pairs
  int32_t partition;
  double offset, timestamp_ms; // -1: no timestamp
  double serial;               // the same for all readers that share this record, never used twice
};

struct kafka_position {
  int32_t partition;
  int32_t unused;
  double offset; // of the next record to read; KAFKA_NOWHERE: the partition is not read
};

struct kafka_reader_options {
  const char *cluster, *topic;
  double from; // KAFKA_LATEST, KAFKA_EARLIEST or KAFKA_NOWHERE, for partitions that `positions` does not name
  const struct kafka_position *positions;
  uint32_t position_count;
  bool skip_when_behind; // rather than catch up from the broker
};

// A partition of a topic, and a place in it.
struct kafka_place {
  const char *topic, *metadata; // metadata: stored beside a committed offset; NULL: none
  double offset;                // -1: unknown, or none committed
  int32_t partition;
  int32_t unused;
};

struct kafka_group_options {
  const char *cluster, *group;
  const char *const *topics; // one that begins with "^" is a regular expression
  uint32_t topic_count;
  uint32_t pair_count;
  const char *const *pairs; // properties over the cluster's
  double from;              // KAFKA_LATEST or KAFKA_EARLIEST, where nothing is committed
  double handover_s;        // how long a partition that is taken away stays this member's, to finish what it has begun
};

// Of no places: all that were given from (commit), or all that the member has (the others).
enum kafka_group_act {
  KAFKA_COMMIT,
  KAFKA_COMMITTED, // the answer is in list KAFKA_ANSWER
  KAFKA_SEEK,      // offset: also KAFKA_LATEST, KAFKA_EARLIEST
  KAFKA_PAUSE,
  KAFKA_RESUME,
  KAFKA_SUBSCRIBE, // to the places' topics from now on, as kafka_group_options.topics; none: to nothing
  KAFKA_ASSIGN     // has just these places, of its own choice; offset as for KAFKA_SEEK, or KAFKA_STORED: the committed
};

enum { KAFKA_STORED = -1000 };

struct kafka_group_request {
  int32_t act;
  uint32_t count;
  const struct kafka_place *places;
  double timeout_s; // 0: without end
};

enum kafka_group_list {
  KAFKA_ASSIGNED, // what the member has; offset: of the next record, -1: none was given yet
  KAFKA_LOST,     // what the last KAFKA_REBALANCE was about
  KAFKA_ANSWER    // what KAFKA_COMMITTED found, until the next call for this member
};

struct kafka_cluster_status {
  const char *name, *servers;
  const char *state;                           // "idle", "connecting", "up", "down"
  const char *error;                           // the last one, "" when there was none
  double error_at;                             // when it was, seconds since 1970; 0: never
  double produced, delivered, failed, refused; // records: accepted, acknowledged, lost to an error, queue full
  double consumed, consumed_bytes;
  double latency[KAFKA_LATENCY_BUCKETS]; // acknowledgements by how long they took: see bridge_kafka_latency_bound
  double latency_s;                      // the sum
  uint32_t queued, readers, consumers;
  bool embedded;
};

struct kafka_topic_status {
  const char *name; // "" stands for those that are too many to be counted one by one
  double delivered, delivered_bytes, failed, consumed, consumed_bytes;
};

struct kafka_broker {
  int32_t id; // -1: not known yet
  char name[128], state[24];
};

// How many records stand behind the last one that was read.
struct kafka_lag {
  char group[128]; // "": the readers of this worker
  const char *topic;
  int32_t partition;
  double records; // -1: not known yet
};

// For SASL OAUTHBEARER.
struct kafka_token {
  const char *value, *principal;
  double until_ms;               // since 1970
  const char *const *extensions; // name, value, name, value...
  uint32_t extension_count;      // pairs
};

// What a cluster can be asked or told, with its texts in order; "..." stands for more of the group before it.
enum kafka_ask {
  KAFKA_ASK_METADATA,     // topic...: none means all
  KAFKA_ASK_OFFSETS,      // (topic, partition, time in ms or KAFKA_LATEST, KAFKA_EARLIEST)...
  KAFKA_ASK_CREATE_TOPIC, // topic, partitions, replicas, validate ("": create), n, n times brokers, (name, value)...
  KAFKA_ASK_DELETE_TOPIC, // topic
  KAFKA_ASK_CREATE_PARTITIONS, // topic, how many it shall have
  KAFKA_ASK_DELETE_RECORDS,    // (topic, partition, first offset to stay or -1)...
  KAFKA_ASK_CONFIGS,           // "topic" or "broker", its name
  KAFKA_ASK_ALTER_CONFIGS, // "topic" or "broker", its name, validate ("": alter), (name, value)...: all that it shall have
  KAFKA_ASK_GROUPS,        //
  KAFKA_ASK_DESCRIBE_GROUPS, // group...
  KAFKA_ASK_DELETE_GROUP,    // group
  KAFKA_ASK_COMMITTED,       // group, (topic, partition)...: none means all
  KAFKA_ASK_COMMIT,          // group, (topic, partition, offset)...
  KAFKA_ASK_FORGET,          // group, (topic, partition)...
  KAFKA_ASK_ACLS,            // a filter: type, name, pattern, principal, host, operation, permission; "" is any text
  KAFKA_ASK_CREATE_ACLS,     // (type, name, pattern, principal, host, operation, permission)...
  KAFKA_ASK_DELETE_ACLS      // filter...
};

struct kafka_question {
  const char *cluster;
  int32_t what;
  uint32_t count;
  const char *const *texts;
  double timeout_s; // 0: 10
};

struct kafka_answer {
  int32_t status;    // BRIDGE_OK; BRIDGE_FAILED; BRIDGE_STALE: the cluster left the configuration
  const char *name;  // of the error as Kafka has it, "" without one
  struct bytes text; // JSON, or why there is none
};

// Defines or replaces a cluster: pairs of property and value, librdkafka's, or "embedded" = "true", "window_records",
// "window_bytes". The same again changes nothing. INVALID: bridge_error names the property.
int bridge_kafka_cluster(struct worker *worker, const char *name, const char *const *pairs, uint32_t pair_count);
// Says what bridge_kafka_cluster would, into `error`; needs no worker.
int bridge_kafka_check(const char *const *pairs, uint32_t pair_count, char *error, uint32_t error_bytes);
// Forgets a cluster: what is queued is still sent, readers end.
int bridge_kafka_cluster_drop(struct worker *worker, const char *name);
int bridge_kafka_cluster_at(struct worker *worker, uint32_t index,
                            struct kafka_cluster_status *out); // from 0, then NONE
// Topics of cluster `cluster`, and its brokers, from 0, then NONE.
int bridge_kafka_topic_at(struct worker *worker, uint32_t cluster, uint32_t index, struct kafka_topic_status *out);
int bridge_kafka_broker_at(struct worker *worker, uint32_t cluster, uint32_t index, struct kafka_broker *out);
// Seconds up to which latency[index] counts; 0: without end.
double bridge_kafka_latency_bound(uint32_t index);
// How many lags were put into `out`, which has room for `most`.
uint32_t bridge_kafka_lags(struct worker *worker, uint32_t cluster, struct kafka_lag *out, uint32_t most);
// The token that all clients of a cluster show from now on. NONE: no such cluster, or it wants none of ours. INVALID:
// librdkafka does not take it. Event "kafka_token" (the cluster's name) says that one is wanted.
int bridge_kafka_token(struct worker *worker, const char *cluster, const struct kafka_token *token);
// There is none, and why: for the cluster's state and the log.
int bridge_kafka_token_failed(struct worker *worker, const char *cluster, const char *why);
// How many clients would have one.
uint32_t bridge_kafka_token_users(struct worker *worker, const char *cluster);
// Queues a record. `wait`: AGAIN, and the coroutine is resumed with its fate, to be read by bridge_kafka_result before
// it yields again. FULL: the queue is full. NONE: no such cluster. KAFKA_TOO_LARGE, KAFKA_NO_PARTITION.
int bridge_kafka_produce(struct worker *worker, const struct kafka_message *message, bool wait);
int bridge_kafka_result(struct worker *worker, struct kafka_result *out);
// Nobody produces with this expires_s any more: each of them has a client of librdkafka, up to 8 a cluster.
int bridge_kafka_expiry_drop(struct worker *worker, const char *cluster, double expires_s);
// A batch, to be closed: records of which one coroutine hears by index. One that was not told of within `timeout_s` (0:
// whenever its message.timeout.ms ends) is told as BRIDGE_TIMEOUT. 0: no memory.
double bridge_kafka_batch(struct worker *worker, double timeout_s);
// Queues a record and gives its index, from 1. FULL: the cluster's queue is, or 1024 records of this batch wait for
// their fate to be told, or for bridge_kafka_batch_result. Else as bridge_kafka_produce; STALE: the batch was closed.
int bridge_kafka_batch_add(struct worker *worker, double batch, const struct kafka_message *message, double *index);
// OK: all are told (`all`), or bridge_kafka_batch_next has one. NONE: it will have none. TIMEOUT: `timeout_s` is 0.
// AGAIN: yield, then call again, unless resumed with BRIDGE_TIMEOUT after that long.
int bridge_kafka_batch_wait(struct worker *worker, double batch, bool all, double timeout_s);
// OK with the index of a record that was told, each once; NONE: none now.
int bridge_kafka_batch_next(struct worker *worker, double batch, double *index);
// OK: what became of it, which frees its place for another; AGAIN: not known yet; NONE: no such record (any more).
int bridge_kafka_batch_result(struct worker *worker, double batch, double index, struct kafka_result *out);
int bridge_kafka_batch_close(struct worker *worker, double batch);
// AGAIN, then resumed with (status, reader) when its positions are known.
int bridge_kafka_reader_open(struct worker *worker, const struct kafka_reader_options *options);
// OK with the next record; KAFKA_GAP; AGAIN: yield, then call again, unless resumed with BRIDGE_TIMEOUT after that long.
// `timeout_s` 0: NONE instead of AGAIN.
int bridge_kafka_reader_next(struct worker *worker, double reader, double timeout_s, const struct kafka_record **out);
// AGAIN, then resumed with OK when one of the readers (at most 256) may have something, or with TIMEOUT or CLOSED.
int bridge_kafka_readers_wait(struct worker *worker, const double *readers, uint32_t count, double timeout_s);
// Of topics in memory, a spec's: the offset of the first record of a partition not older than `at_ms`, or KAFKA_LATEST,
// KAFKA_EARLIEST. NONE: no such partition. FAILED: there is a cluster to ask.
int bridge_kafka_memory_offset(struct worker *worker, const char *topic, int32_t partition, double at_ms, double *out);
// Position in partition `index` (from 0); NONE past the last one.
int bridge_kafka_reader_position(struct worker *worker, double reader, uint32_t index, struct kafka_position *out);
int bridge_kafka_reader_close(struct worker *worker, double reader);
// AGAIN, and the coroutine is resumed with the answer's status; bridge_kafka_answer has the rest before it yields again.
// FULL, NONE, INVALID, FAILED: it was not asked.
int bridge_kafka_ask(struct worker *worker, const struct kafka_question *question);
int bridge_kafka_answer(struct worker *worker, struct kafka_answer *out);
// AGAIN, then resumed with (status, member) when the consumer runs; its partitions come later. FULL: too many members.
int bridge_kafka_group_open(struct worker *worker, const struct kafka_group_options *options);
// As bridge_kafka_reader_next, and KAFKA_REBALANCE: the partitions of list KAFKA_LOST are to be let go of. They go when
// this is called again, or after the hand-over time.
int bridge_kafka_group_next(struct worker *worker, double member, double timeout_s, const struct kafka_record **out);
// AGAIN, then resumed with the status: OK, FAILED (see bridge_kafka_group_result), TIMEOUT (it may yet come to pass),
// CLOSED. OK at once: there was nothing to do. A commit of no places commits all that was given.
int bridge_kafka_group_act(struct worker *worker, double member, const struct kafka_group_request *request);
// Why the last thing failed: `name` and `text`.
int bridge_kafka_group_result(struct worker *worker, double member, struct kafka_result *out);
// Entry `index` (from 0) of a kafka_group_list; NONE past the last one.
int bridge_kafka_group_place(struct worker *worker, double member, int32_t list, uint32_t index,
                             struct kafka_place *out);
int bridge_kafka_group_close(struct worker *worker, double member);

// ---- Counters: shared by all workers, atomic ---------------------------------------------------------------------------

enum { BRIDGE_DIFFERS = 3 }; // another value stands there, or any at all

struct counter_usage {
  uint32_t slots, used, named; // `used` counts what lives, named ones included
  double text_bytes, text_used;
  double refused; // what found the table full
};

// Adds and gives the new value; NaN: no room. A new key begins at 0 and ends after `ttl_s` (0: never); adding to a
// living one does not prolong it. Numbers are whole and below 2^53.
// The key is `key` with `whose` behind it.
double bridge_counter_add(struct worker *worker, const char *key, uint32_t len, const char *whose, uint32_t whose_len,
                          double delta, double ttl_s);
double bridge_counter_get(struct worker *worker, const char *key, uint32_t len); // NaN: none
double bridge_counter_ttl(struct worker *worker, const char *key,
                          uint32_t len); // seconds left; 0: never ends; NaN: none
int bridge_counter_set(struct worker *worker, const char *key, uint32_t len, double value, double ttl_s); // OK, FULL
// OK, NONE, or BRIDGE_DIFFERS.
int bridge_counter_compare_set(struct worker *worker, const char *key, uint32_t len, double expected, double value);
int bridge_counter_delete(struct worker *worker, const char *key, uint32_t len);
// Named counters never end and can be listed. The handle stays good for the life of the gateway; 0: no room.
double bridge_counter_name(struct worker *worker, const char *key, uint32_t len);
double bridge_counter_add_at(struct worker *worker, double handle, double delta); // the new value; NaN: no such handle
double bridge_counter_at(struct worker *worker, double handle);
// OK, BRIDGE_DIFFERS, or NONE: no such handle.
int bridge_counter_swap_at(struct worker *worker, double handle, double expected, double value);
// Grows with each name that is given: while it stands still bridge_counter_next would find no new one.
double bridge_counter_names(struct worker *worker);
// The named counters whose key begins with `prefix`, in no particular order: begin with *cursor 0; of one that was found
// it is the handle. OK; NONE; AGAIN (without noting the coroutine): a piece of the table was looked at without finding one.
int bridge_counter_next(struct worker *worker, const char *prefix, uint32_t len, double *cursor, struct bytes *key,
                        double *value);
// Counts a piece of the table, which is large: begin with *cursor 0. AGAIN (without noting the coroutine) while there is
// more.
int bridge_counter_usage(struct worker *worker, double *cursor, struct counter_usage *out);
// Leases: see lease.h. Takes one of `most` for the exchange. OK; NONE: all are in use; FULL; STALE. `*held` gets how
// many are in use.
int bridge_lease_take(struct worker *worker, double exchange, const char *key, uint32_t len, double most, double *held);
int bridge_lease_end(struct worker *worker, double exchange, const char *key, uint32_t len); // OK, NONE, STALE
double bridge_lease_count(struct worker *worker, const char *key, uint32_t len);

// ---- Regular expressions: bounded in time and memory ------------------------------------------------------------------

struct regex;
struct regex_scratch; // what a match works in, and its spans: one for many expressions

// NULL, and why.
struct regex *bridge_regex_new(const char *pattern, uint32_t len, bool caseless, bool anchored, char *why,
                               uint32_t why_bytes);
void bridge_regex_free(struct regex *regex);
struct regex_scratch *bridge_regex_scratch_new(uint32_t groups); // NULL without memory
void bridge_regex_scratch_free(struct regex_scratch *scratch);
// How many spans are known (1: the whole match, then its groups); 0: no match; negative: given up at a limit.
int bridge_regex_match(const struct regex *regex, const char *subject, uint32_t len, uint32_t from,
                       struct regex_scratch *scratch);
// Where span `index` begins and ends; UINT32_MAX: the group took no part.
void bridge_regex_span(const struct regex_scratch *scratch, uint32_t index, uint32_t *from, uint32_t *to);
uint32_t bridge_regex_groups(const struct regex *regex);
bool bridge_regex_group_name(const struct regex *regex, uint32_t index, struct bytes *name, uint32_t *group); // from 0

// ---- Protocol buffers -----------------------------------------------------------------------------------------------------

struct protobuf;          // types and services of one descriptor set
struct protobuf_compiler; // of .proto files to descriptor sets

enum {
  PROTOBUF_DEFAULTS = 1,     // to JSON: fields without a value are written with their default
  PROTOBUF_PROTO_NAMES = 2,  // to JSON: fields are named as in the .proto file
  PROTOBUF_ENUM_NUMBERS = 4, // to JSON: enums are numbers
  PROTOBUF_KNOWN_ONLY = 8,   // to binary: a field that the message has not is an error, and not passed over
  PROTOBUF_ORDERED = 16      // to binary: equal messages are equal bytes, in whatever order their JSON has members
};

struct protobuf_method {
  struct bytes path; // as gRPC calls it: "/bank.Accounts/Open"
  struct bytes input, output;
  bool client_streaming, server_streaming;
};

struct protobuf_rule {
  struct bytes verb;    // "GET", or a custom kind
  struct bytes pattern; // path with variables, such as "/v1/{name=shelves/*}"
  struct bytes body, response_body;
};

struct protobuf_field {
  struct bytes name;    // as in the .proto file
  struct bytes json;    // in lowerCamelCase, or what the file says
  struct bytes message; // full name of its type; empty for other than messages
  bool repeated, map;
};

// Bytes that these give live as long as the compiler or the schema, but for results of conversions.
struct protobuf_compiler *bridge_protobuf_compiler_new(void);
void bridge_protobuf_compiler_free(struct protobuf_compiler *compiler);
void bridge_protobuf_compiler_folder(struct protobuf_compiler *compiler, const char *path); // to look for imports in
void bridge_protobuf_compiler_text(struct protobuf_compiler *compiler, const char *name, const char *text,
                                   uint32_t len); // a file that is not on disk
// OK with a FileDescriptorSet, or INVALID with what is wrong, a fault a line: "file:line:column: what".
int bridge_protobuf_compile(struct protobuf_compiler *compiler, const char *name, struct bytes *out);
// Files that were read from folders: `index` from 0. False past the last, as below.
bool bridge_protobuf_compiler_read(const struct protobuf_compiler *compiler, uint32_t index, struct bytes *path);

// NULL, and why.
struct protobuf *bridge_protobuf_new(const char *set, uint32_t len, char *why, uint32_t why_bytes);
void bridge_protobuf_free(struct protobuf *protobuf);
bool bridge_protobuf_has(const struct protobuf *protobuf, const char *message, uint32_t len);
bool bridge_protobuf_method(const struct protobuf *protobuf, uint32_t index, struct protobuf_method *out);
bool bridge_protobuf_rule(const struct protobuf *protobuf, uint32_t method, uint32_t index, struct protobuf_rule *out);
// A field by its name in either spelling.
bool bridge_protobuf_field(const struct protobuf *protobuf, const char *message, const struct bytes *field,
                           struct protobuf_field *out);
// Of the set's last file: a message by its index there, then in the message around it, and so on; and the way back,
// which gives how many steps there are, 0 when the message is none of that file's.
bool bridge_protobuf_message_at(const struct protobuf *protobuf, const int32_t *steps, uint32_t count,
                                struct bytes *name);
uint32_t bridge_protobuf_message_place(const struct protobuf *protobuf, const char *message, int32_t *steps,
                                       uint32_t most);
// OK with bytes that live until the next conversion of this schema, or INVALID with the reason in their place. `field`
// (may be NULL): what is given is the JSON value of this field of the message.
int bridge_protobuf_to_json(struct protobuf *protobuf, const char *message, const struct bytes *in, uint32_t flags,
                            struct bytes *out);
int bridge_protobuf_to_binary(struct protobuf *protobuf, const char *message, const char *field, const struct bytes *in,
                              uint32_t flags, struct bytes *out);

// ---- JSON: edits of texts, by core/json_edit.h ------------------------------------------------------------------------------

enum json_step {
  JSON_REMOVE,
  JSON_RENAME,  // a member
  JSON_REPLACE, // what is there
  JSON_ADD,     // a member that is not there
  JSON_APPEND,  // to a list; what is there becomes one
  JSON_ALLOW    // of the members of the whole only these stay
};

struct json_edits *bridge_json_edits_new(void); // NULL: no memory
void bridge_json_edits_free(struct json_edits *edits);
int bridge_json_edits_add(struct json_edits *edits, int step, const struct bytes *path, uint32_t count,
                          const char *value, uint32_t len);
int bridge_json_edits_value(struct json_edits *edits, uint32_t number, const char *value, uint32_t len);
// OK with the text, which lives until the next run; INVALID: it is no JSON; FULL.
int bridge_json_edits_run(struct worker *worker, struct json_edits *edits, const char *text, uint32_t len,
                          struct bytes *out);

// ---- Store: key-value data shared by all workers, on disk ----------------------------------------------------------------

struct store_usage {
  double entries, bytes_used, bytes_limit;
  double evicted; // by this worker, to make room
};

// OK; INVALID: empty key, or longer than 480 bytes; FULL: larger than the store takes; FAILED.
int bridge_store_set(struct worker *worker, const char *key, uint32_t key_len, const char *value, uint32_t value_len,
                     double ttl_s); // 0: never ends
// Only where the key is not there: BRIDGE_DIFFERS else.
int bridge_store_add(struct worker *worker, const char *key, uint32_t key_len, const char *value, uint32_t value_len,
                     double ttl_s);
// OK, NONE or FAILED. The bytes live until the next call on the store. `*ttl_s` (may be NULL): seconds left, 0: never ends.
int bridge_store_get(struct worker *worker, const char *key, uint32_t len, struct bytes *out, double *ttl_s);
int bridge_store_delete(struct worker *worker, const char *key, uint32_t len);              // OK, NONE, FAILED
double bridge_store_delete_prefix(struct worker *worker, const char *prefix, uint32_t len); // how many; NaN: failed
// The first key behind `after` (empty: the first of all) that begins with `prefix`: OK, NONE or FAILED.
int bridge_store_next(struct worker *worker, const char *prefix, uint32_t prefix_len, const char *after,
                      uint32_t after_len, struct bytes *key, struct bytes *value, double *ttl_s);
int bridge_store_usage(struct worker *worker, struct store_usage *out);

// ---- Cached responses: what is stored for a request, and storing one while it passes --------------------------------------

enum { CACHE_KEY_HEX = 32, CACHE_TAGS_MOST = 128, CACHE_NAME_URL = 'u', CACHE_NAME_TAG = 't' };

enum cache_flags {          // of a stored response
  CACHE_MUST_VALIDATE = 1,  // stale, it is not served
  CACHE_ALWAYS_VALIDATE = 2 // nor fresh
};

enum cache_asks { // fields of the request that an answer may hang on
  CACHE_ASKS_CONTROL = 1,
  CACHE_ASKS_CONDITION = 2,
  CACHE_ASKS_PRECONDITION = 4,
  CACHE_ASKS_RANGE = 8,
  CACHE_ASKS_AUTHORIZATION = 16
};

enum cache_tells { // fields of an answer
  CACHE_TELLS_AGE = 1,
  CACHE_TELLS_STATUS = 2, // X-Cache-Status
  CACHE_TELLS_KEY = 4,    // X-Cache-Key
  CACHE_TELLS_MEMBER = 8  // Cache-Status (RFC 9211)
};

// What a key is made of; the caller's, and so are its texts.
struct cache_rules {
  const struct bytes *headers, *params; // values of these fields, in lower case; arguments of the query
  uint32_t header_count, param_count;
  uint32_t tells;
  bool all_params, ignore_case; // of the path
  bool by_authorization;        // what one client was told is not told to others
  bool ignores_control;         // what a request asks of caches does not count
};

// Whose response to what.
struct cache_subject {
  struct bytes scope, who, method, body;
};

struct cache_found {
  char key[CACHE_KEY_HEX];
  uint32_t asks, flags;
  int32_t status;
  double age_s, lifetime_s, revalidate_s, error_s; // past the lifetime: while it is validated, and when that fails
  double length, first, total;                     // of the content stored, where in the whole (-1: unknown) it begins
};

// How a response is stored.
struct cache_how {
  double lifetime_s, age_s, revalidate_s, error_s, keep_s; // `keep_s` 0: until there is no room
  double most_bytes, first, length, total;                 // of a part: where it begins, how long it and the whole are
  bool joins;                                              // what was found is another part of the same
  struct bytes vary, tags, drop; // names of the request's fields; tags; names of fields that are not kept: lists
  uint32_t flags;
};

// OK: it is the answer already, complete. BRIDGE_DIFFERS: there is one, for the caller to judge. NONE; FULL: the key is too
// long; INVALID: it asks for another protocol; FAILED.
int bridge_cache_find(struct worker *worker, double exchange, const struct cache_rules *rules,
                      const struct cache_subject *subject, struct cache_found *out);
// What was found is the answer; status 0: its own. `label` is told in X-Cache-Status, `member` in Cache-Status.
int bridge_cache_answer(struct worker *worker, double exchange, uint32_t tells, int status, const struct bytes *label,
                        const struct bytes *member);
// Before that: of the answer's content, a text and then [from, to) of what is stored.
int bridge_cache_piece(struct worker *worker, double exchange, const char *text, uint32_t len, double from, double to);
// In service_head: the response is stored while it passes. OK; FULL: too large; INVALID: its tags are too many or long.
int bridge_cache_store(struct worker *worker, double exchange, const struct cache_how *how);
// In service_head: what was found is still good, and gets the fields of this response.
int bridge_cache_refresh(struct worker *worker, double exchange, const struct cache_how *how);
// Names of fields (a list) that the client is not told.
int bridge_cache_hide(struct worker *worker, double exchange, const char *names, uint32_t len);
int bridge_cache_drop(struct worker *worker, double exchange); // what was found
// One goes to the service for all who want the same. OK: this one. BRIDGE_DIFFERS: another of this worker, wait for it. NONE:
// one of another worker; then call again now and then.
int bridge_cache_lead(struct worker *worker, double exchange, double seconds);
// AGAIN; then OK: look again; NONE: nothing was stored; CLOSED: that one has gone; TIMEOUT.
int bridge_cache_wait(struct worker *worker, double exchange, double seconds);
int bridge_cache_unlead(struct worker *worker, double exchange, bool stored); // others need not wait any more
// The request goes to the service once more, for nobody but the cache, which validates what was found: the handle of that
// exchange. NaN: one is on its way, or it cannot be done.
double bridge_cache_renew(struct worker *worker, double exchange);
// The name that responses to `path` (with a query) on the exchange's host have; path NULL: its own.
int bridge_cache_url(struct worker *worker, double exchange, const struct cache_rules *rules, const char *path,
                     uint32_t len, struct bytes *out);
// Removes what is named so (CACHE_NAME_*), or begins so, a batch at a time: how many, 0 at the end; NaN: failed.
double bridge_cache_purge(struct worker *worker, int kind, const char *text, uint32_t len, bool prefix);
double bridge_cache_purge_key(struct worker *worker, const char *hex, uint32_t len); // NaN: it is no key
// All at once in a folder, without a worker: for the command line. Kind 0: the text is a key. NaN, and `why`.
double bridge_cache_purge_in(const char *folder, double bytes, int kind, const char *text, uint32_t len, bool prefix,
                             char *why, uint32_t why_bytes);
int bridge_cache_usage(struct worker *worker, struct store_usage *out);

// ---- Metrics: what named counters say, see exposition.h ------------------------------------------------------------------

struct metric_family {
  struct bytes name; // one name may stand for several kinds
  int32_t kind;      // a byte: c, g, x, h
  uint32_t series, first_row;
};

struct metric_series {
  struct bytes labels;
  double value;
  uint32_t next_row; // 0: it is the last of its family
};

// Takes in what came since. OK; AGAIN (without noting the coroutine): there is more to look at; FAILED: no memory for it.
int bridge_metrics_look(struct worker *worker);
int bridge_metrics_family(struct worker *worker, uint32_t index, struct metric_family *out); // from 0. OK, NONE
int bridge_metrics_series(struct worker *worker, uint32_t row, struct metric_series *out);   // OK, NONE
// Bucket `index` (from 0), by bounds; its own count. OK, NONE.
int bridge_metrics_bucket(struct worker *worker, uint32_t row, uint32_t index, double *bound, double *count);
// Lines of at most `most` series from `*row` on, which becomes that of the next, 0 at the end; good until the next call.
// OK; FAILED: no memory.
int bridge_metrics_text(struct worker *worker, uint32_t *row, uint32_t most, struct bytes *out);

// ---- Spools: texts that wait in order, outside of Lua's memory ----------------------------------------------------------

double bridge_spool_new(struct worker *worker); // its number, from 1, or negative
// OK, FULL: no memory, STALE: no such spool.
int bridge_spool_put(struct worker *worker, double spool, const char *data, uint32_t len);
// The oldest, which stays good until the spool's next call. OK, NONE, STALE.
int bridge_spool_take(struct worker *worker, double spool, struct bytes *out);
void bridge_spool_free(struct worker *worker, double spool);

// ---- Files ---------------------------------------------------------------------------------------------------------------

// Puts a line (a line feed is added) at the end of a file; it is written with what else comes in the next moment. OK, or
// FULL when it is lost; a file that cannot be written is told in the log. `reopen`: the file is closed after each write.
int bridge_file_append(struct worker *worker, const char *path, const char *line, uint32_t len, bool reopen);

// ---- Crypto: everything in the caller's buffers ----------------------------------------------------------------------------

enum crypto_digest {
  CRYPTO_MD5,
  CRYPTO_SHA1,
  CRYPTO_SHA256,
  CRYPTO_SHA384,
  CRYPTO_SHA512,
  CRYPTO_SHA224,
  CRYPTO_DIGESTS
};

enum crypto_encoding { CRYPTO_HEX, CRYPTO_BASE64, CRYPTO_BASE64URL }; // base64url is written without padding

enum crypto_signature {
  CRYPTO_RSA,     // PKCS#1 v1.5 with the digest (JWT RS256...)
  CRYPTO_RSA_PSS, // salt as long as the digest (PS256...)
  CRYPTO_ECDSA,   // raw r and s side by side (ES256...), as JOSE has it
  CRYPTO_ECDSA_DER,
  CRYPTO_EDDSA // Ed25519, Ed448; the digest is not used
};

enum { CRYPTO_DIGEST_MAX = 64, CRYPTO_SIGNATURE_MAX = 1024, CRYPTO_GCM_IV = 12, CRYPTO_GCM_TAG = 16 };

int bridge_crypto_digest_parse(const char *name, uint32_t len); // "sha256" to CRYPTO_SHA256; -1: none of them
// Both give the bytes written (at most CRYPTO_DIGEST_MAX), or INVALID.
int bridge_crypto_digest(int digest, const char *data, uint32_t len, char *out);
int bridge_crypto_hmac(int digest, const char *key, uint32_t key_len, const char *data, uint32_t len, char *out);
// How many bytes encoding gives, and decoding at most; then the bytes written, or INVALID.
uint32_t bridge_crypto_encoded_len(int encoding, uint32_t len);
uint32_t bridge_crypto_decoded_len(int encoding, uint32_t len);
int bridge_crypto_encode(int encoding, const char *data, uint32_t len, char *out);
int bridge_crypto_decode(int encoding, const char *text, uint32_t len, char *out);
bool bridge_crypto_equal(const char *a, uint32_t a_len, const char *b, uint32_t b_len); // in constant time

struct crypto_key; // public, or a pair; freed by bridge_key_free

struct key_info {
  const char *type;  // "RSA", "RSA-PSS", "EC" or "OKP"
  const char *curve; // "P-256", "P-384", "P-521", "Ed25519", "Ed448", "other"; NULL for RSA
  int bits;
  bool is_private;
};

// What a JWK is made of, decoded; what is not there is empty.
struct jwk_parts {
  struct bytes type, curve, n, e, d, p, q, dp, dq, qi, x, y;
};

// NULL, and `why` (a text) says why, when it is no key of use. A PEM holds a public key, a certificate or a private key.
struct crypto_key *bridge_key_from_pem(const char *pem, uint32_t len, char *why, uint32_t why_bytes);
struct crypto_key *bridge_key_from_certificate(const char *der, uint32_t len, char *why, uint32_t why_bytes);
struct crypto_key *bridge_key_from_jwk(const struct jwk_parts *parts, char *why, uint32_t why_bytes);
void bridge_key_free(struct crypto_key *key);
void bridge_key_tell(const struct crypto_key *key, struct key_info *out);
bool bridge_key_same(const struct crypto_key *a, const struct crypto_key *b); // whether the public halves are
// Bytes written to `out` (CRYPTO_SIGNATURE_MAX); FAILED, and `why` says why.
int bridge_key_sign(const struct crypto_key *key, int kind, int digest, const char *data, uint32_t len, char *out,
                    char *why, uint32_t why_bytes);
// OK; NONE when the signature is not good; INVALID when the key is of another kind.
int bridge_key_verify(const struct crypto_key *key, int kind, int digest, const char *data, uint32_t len,
                      const char *signature, uint32_t signature_len);

// ---- Clients' certificates: see crypto_certificate.h

struct crypto_authorities; // freed by bridge_authorities_free

enum crypto_revocation { CRYPTO_UNKNOWN, CRYPTO_GOOD, CRYPTO_REVOKED };

enum { CRYPTO_FIELDS_MOST = 65536 }; // bytes that telling what a certificate says takes

// NULL, and `why` (a text) says why.
struct crypto_authorities *bridge_authorities_new(const char *pem, uint32_t len, bool partial, char *why,
                                                  uint32_t why_bytes);
void bridge_authorities_free(struct crypto_authorities *authorities);
// All of these give bytes written to `out` (CRYPTO_FIELDS_MOST); FAILED, and `why` says why.
int bridge_certificate_tell(const char *pem, uint32_t len, char *out, char *why, uint32_t why_bytes);
int bridge_certificate_verify(const struct crypto_authorities *authorities, const char *pem, uint32_t len, double now_s,
                              char *out, char *why, uint32_t why_bytes);
int bridge_ocsp_request(const struct bytes *pem, const struct bytes *issuer, char *out, char *why, uint32_t why_bytes);
// enum crypto_revocation; UNKNOWN: `why` says why. `request` empty: `answer` is a list of revoked certificates.
int bridge_revocation(const struct bytes *request, const struct bytes *answer, const struct bytes *pem,
                      const struct bytes *issuer, double now_s, double *until_s, char *why, uint32_t why_bytes);

// AES-GCM; the key has 16, 24 or 32 bytes, the IV CRYPTO_GCM_IV; sealed text is CRYPTO_GCM_TAG longer. Bytes written, or
// FAILED. `associated` may be NULL.
int bridge_crypto_seal(struct worker *worker, const struct bytes *key, const struct bytes *iv, const struct bytes *data,
                       const struct bytes *associated, char *out);
int bridge_crypto_open(struct worker *worker, const struct bytes *key, const struct bytes *iv,
                       const struct bytes *sealed, const struct bytes *associated, char *out);
// OK or FAILED. Slow by intent.
int bridge_crypto_scrypt(struct worker *worker, const struct bytes *password, const struct bytes *salt, double n,
                         uint32_t r, uint32_t p, char *out, uint32_t len);

// Whether a password (up to 511 bytes) is the one of a hash as of crypt(5), found out on a helper thread: AGAIN, and the
// coroutine is resumed with OK or NONE; INVALID: it cannot be one; FULL: too many wait.
int bridge_password_check(struct worker *worker, const char *password, uint32_t len, const char *hash,
                          uint32_t hash_len);

// ---- DNS -----------------------------------------------------------------------------------------------------------------

enum dns_kind {
  DNS_ADDRESS, // A, and AAAA where there is no A
  DNS_A,
  DNS_AAAA,
  DNS_SRV // the targets' addresses, each with port, priority and weight; lowest priority first
};

struct dns_record {
  char address[48];
  uint32_t port, priority, weight; // of SRV; else 0
};

// OK: read the records by bridge_dns_at before the coroutine yields again. AGAIN: yield, and be resumed with (status,
// how many records). FAILED: bridge_error names the name.
int bridge_dns_resolve(struct worker *worker, const char *name, uint32_t len, int kind);
int bridge_dns_at(struct worker *worker, uint32_t index, struct dns_record *out, double *ttl_s); // from 0; OK or NONE

// For the spec kit. The answer for a name: addresses as texts; none: there is no such name.
int bridge_dns_fake(struct worker *worker, const char *name, uint32_t len, const char *const *addresses, uint32_t count,
                    double ttl_s);
void bridge_dns_offline(struct worker *worker, bool offline); // no server is asked
