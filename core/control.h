// SPDX-License-Identifier: Apache-2.0
// Lines over a local stream socket: between the master and a worker, and between the master and `sluice status` and its
// like. A line is text without LF. On the control socket of the master a client sends one command and reads JSON lines
// until the master closes.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "loop.h"

struct control;
struct text;

enum { CONTROL_LINE_MAX = 16777216 }; // a status with thousands of targets is one line

struct control_handler {
  // The line ends with a zero and lives until the handler returns. It may call control_close.
  void (*on_line)(void *context, char *line, uint32_t len);
  // The peer is gone, or all was written after control_finish. The handler calls control_close.
  void (*on_close)(void *context);
};

// Takes over `fd` (made non-blocking here). NULL when out of memory.
struct control *control_open(struct loop *loop, int fd, const struct control_handler *handler, void *context);

// Sends a line, queueing what the socket does not take. ERROR_CLOSED when the peer is gone, ERROR_MEMORY when it
// does not read and more than CONTROL_LINE_MAX bytes wait.
int control_send(struct control *control, const char *line, uint32_t len);

// No more lines will be sent: on_close follows once all is written.
void control_finish(struct control *control);

// Closes the socket and frees; what is still queued is lost.
void control_close(struct control *control);

// A listening socket at `path` for this user alone, replacing a stale one; its descriptor or a negative code.
int control_listen(const char *path, struct error *error);

// Sends one line and gathers the answer until the peer closes, waiting at most `timeout_ms`. For the command line: it
// blocks. 0, or a negative code.
int control_ask(const char *path, const char *line, int64_t timeout_ms, struct text *answer, struct error *error);
