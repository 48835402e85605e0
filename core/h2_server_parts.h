// SPDX-License-Identifier: Apache-2.0
// What the connection (h2_server.c, h2_server_input.c) and its streams (h2_stream.c) share; nobody else includes this.
#pragma once
#include "h2.h"
#include "h2_guard.h"
#include "h2_server.h"
#include "loop.h"
#include "server.h"
#include "stream.h"

enum h2_state {
  H2_OPEN,
  H2_NOTICED, // the client has been told that the end is near; its requests on the way are still served
  H2_LEAVING  // later streams are ignored; the end comes with the last one
};

struct h2_stream {
  struct stream stream; // first: an exchange finds us by it
  struct h2_server *h2;
  struct h2_stream *previous, *next; // in h2->streams
  struct h2_stream *next_touched;    // in h2->touched
  struct exchange *exchange;         // NULL once the response is whole, or the exchange never began
  int32_t id;
  uint32_t head_bytes; // decoded, of head and trailers
  struct slice authority, protocol;
  struct h2_fields head;     // of the response, until it is submitted; in the exchange's arena
  struct h2_fields trailers; // list NULL: none; one block of memory with what it points to
  struct buffer out;         // content on its way to the client
  struct buffer held;        // a tunnel's, until there is one
  uint32_t unused;           // bytes of content that came and were not given back to the windows
  int64_t began_us, content_us, sent_us;
  bool head_pending; // `head` waits to be submitted
  bool deferred;     // nghttp2 waits for nghttp2_session_resume_data
  bool congested;    // the exchange was told so, and waits
  bool ended;        // nothing comes behind `out` and `trailers`
  bool request_open; // its content still arrives
  bool want_body, touched;
  bool waits;                          // the head is whole, the exchange has yet to hear of it
  bool tunnel_asked, tunnel, released; // released: content goes on at once
  bool malformed, too_large, long_target;
};

struct h2_server {
  struct server *server;
  struct worker *worker;
  struct conn *conn;
  nghttp2_session *session;
  struct h2_stream *streams;
  uint32_t stream_count;
  struct h2_stream *current;                // whose head is arriving
  struct h2_stream *touched, **touched_end; // a head or content came in this turn
  struct job in_job, out_job, wake_job;
  struct chunk *small;                           // small pieces of content of any stream share it, NULL: none
  size_t queued;                                 // in all streams' `out`
  uint32_t turn_left;                            // requests that may begin before others get their turn
  uint8_t frame_head[H2_FRAME_HEAD], frame_have; // of the frame that is arriving
  uint32_t frame_left;                           // of its payload; at first, of the preface
  uint32_t block_bytes;
  int32_t last_id, skipped_from, skipped_to; // streams: the latest, and the latest that it left out
  uint8_t state;                             // enum h2_state
  bool greeted;                              // SETTINGS have come
  bool inside;                               // nghttp2 is at work: it may not be ended
  bool congested;                            // a stream's exchange waits
  const char *offence;
  struct h2_bucket calm, resets;
  // Since when: no stream; a head that does not end; content that nobody takes, bytes that the socket does not take
  int64_t idle_us, head_us, progress_us, stuck_us, noticed_us;
  int64_t delivered; // by conn_delivered, when the deadline was last looked at
  struct grave grave;
};

// h2_stream.c
struct h2_stream *h2_stream_new(struct h2_server *h2, int32_t id);
void h2_stream_free(struct h2_stream *stream);
// A field of the head or the trailers has come.
void h2_stream_on_field(struct h2_stream *stream, struct slice name, struct slice value);
// The head is whole. `last`: so is the request. The exchange hears of it when this turn's input has been read, so that
// a request which is cancelled in the same breath costs nothing.
void h2_stream_on_head(struct h2_stream *stream, bool last);
// The exchange begins, if that has had to wait.
void h2_stream_begin(struct h2_stream *stream);
void h2_stream_on_content(struct h2_stream *stream, struct chunk *chunk, struct slice piece);
void h2_stream_on_request_end(struct h2_stream *stream);
// The input of this turn has been read.
void h2_stream_settle(struct h2_stream *stream);
bool h2_stream_is_congested(const struct h2_stream *stream);

// h2_server_input.c
// Uses up the input that is there, as far as this turn's share goes. `data` is the struct h2_server.
void h2_input(struct worker *worker, void *data);
// The stream settles when the input has been read.
void h2_touch(struct h2_stream *stream);
void h2_set_input(nghttp2_session_callbacks *callbacks);

// h2_server.c
// What is ready goes, then nothing more.
void h2_finish(struct h2_server *h2);
// The same for who did what h2->offence says, with a line in the log.
void h2_offend(struct h2_server *h2);
bool h2_is_over(const struct h2_server *h2);
// When the connection is looked at next.
void h2_tick(struct h2_server *h2);
// Frames wait to be written: they will, when this turn's events have been dealt with.
void h2_wake(struct h2_server *h2);
