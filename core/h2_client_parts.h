// SPDX-License-Identifier: Apache-2.0
// What the parts of HTTP/2 to services (h2_client*.c, h2_call.c) know of each other; nobody else includes this.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "clock.h"
#include "conn.h"
#include "h2.h"
#include "h2_client.h"
#include "loop.h"
#include "pool.h"

struct exchange;
struct h2_call;
struct tls_context;

enum { H2_STREAMS_AT_FIRST = 100 }; // until the service says how many it takes (RFC 9113 5.1.2)

struct h2_calls {
  struct h2_call *first, *last;
  uint32_t count;
};

// One connection.
struct h2_client {
  struct worker *worker;
  struct conn conn;
  nghttp2_session *session; // NULL until the connection is established
  struct pool_key key;
  struct h2_client *previous, *next; // in its bucket, while `listed`
  struct tls_context *tls;           // NULL: plain
  char *tls_name;
  struct h2_calls active, waiting; // with a stream; for one
  struct h2_call *touched;         // those whose side of the client has to be seen to
  struct h2_call *current;         // the one that something has come for; NULL once it has gone
  struct h2_call *heading;         // the one whose head is arriving; the same
  uint32_t limit;                  // streams at once
  bool listed;                     // takes more calls
  bool served;                     // something has come from the service
  bool greeted;                    // its first SETTINGS have
  bool leaving;                    // GOAWAY, or the end of its numbers
  bool suspect;                    // silent for so long that it is asked whether it lives
  char reason[160];                // what the library found wrong
  struct job turn;
  struct grave grave;
};

// One stream and its exchange; in the exchange's arena.
struct h2_call {
  struct h2_client *client;
  struct exchange *exchange;
  struct h2_call *previous, *next; // in client->active or waiting
  struct h2_call *touched_previous, *touched_next;
  struct buffer out; // content for the service
  int32_t id;        // of the stream; 0: waits for one
  uint32_t taken;    // bytes of content whose window is not given back yet
  uint32_t head_bytes;
  bool complete;              // `out` ends the content
  bool request_sent, resumed; // the last of it has been framed; the library asks for more by itself
  bool throttled;             // the client has been told to wait with its content
  bool head_over;             // the final head has come: fields are trailers
  bool paused;                // the client is slow
  bool early;                 // sent before the service could say how many streams it takes
  bool closed;                // the stream is, or closes by itself
  bool touched;
  uint64_t framed, delivered; // bytes of content, and what they were when the deadline was last looked at
  int64_t deadline_us;        // 0: none
  struct timer timer;
};

// ---- h2_client.c -----------------------------------------------------------------------------------------------------

// A connection of that key that takes the call; it waits there for its stream. 0, or an error with its text: no
// connection can be made (ERROR_CLOSED), or too many wait (ERROR_MEMORY).
int h2_client_join(struct h2_call *call, const struct pool_key *key, struct error *error);
// Everything that has to be written, or done, is so before the loop waits.
void h2_client_later(struct h2_client *client);
// Not one of its calls has heard anything: asks whether the service is still there.
void h2_client_probe(struct h2_client *client);
void h2_client_unlist(struct h2_client *client);
struct h2_client *h2_client_of(struct conn *conn);

void h2_calls_add(struct h2_calls *calls, struct h2_call *call);
void h2_calls_remove(struct h2_calls *calls, struct h2_call *call);

// ---- h2_client_session.c ---------------------------------------------------------------------------------------------

// The library's session of a connection that is established. 0, or ERROR_MEMORY.
int h2_session_open(struct h2_client *client);
void h2_session_pool_close(struct h2_pool *pool);

// ---- h2_call.c -------------------------------------------------------------------------------------------------------

// The exchange that the call is of, with its try as the current one.
struct exchange *h2_call_enter(struct h2_call *call);
// The connection has a stream for it: the request goes.
void h2_call_begin(struct h2_call *call);
// Forgets the call, and cancels its stream where that is open.
void h2_call_drop(struct h2_call *call);
void h2_call_touch(struct h2_call *call);
// After a batch of frames: what has come is handed on, and the window given back as far as the client follows.
void h2_call_settle(struct h2_call *call);
void h2_call_on_head(struct h2_call *call, bool last);
void h2_call_on_body(struct h2_call *call, const char *data, uint32_t len);
void h2_call_on_end(struct h2_call *call);
void h2_call_on_closed(struct h2_call *call, uint32_t error_code);
// The response cannot be taken.
void h2_call_refuse(struct h2_call *call, const char *why);
void h2_call_await(struct h2_call *call);
int h2_call_send_data(struct h2_call *call, const uint8_t head[9], size_t len);
