// SPDX-License-Identifier: Apache-2.0
// Lines at the end of files, for logs of exchanges: gathered for a moment, written on a helper thread, so that no disk
// holds up the loop. A batch is one write to a file opened for appending: lines of several workers do not mix.
// A process that is killed loses what waits: lines of the last tenth of a second, at most 256 KB and what is being
// written, unless the disk is slower than that. A file that was moved away or removed is made anew with the next batch.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "loop.h"

struct appender;

enum appender_status {
  APPENDER_OK = 0,
  APPENDER_FULL = -3 // too much waits already, or too many files: the line is lost, and counted in the log
};

// A line and where it goes.
struct appended {
  const char *path;
  const char *line; // a line feed is added
  uint32_t len;
  bool reopen; // the file is closed after each batch
};

struct appender *appender_new(struct loop *loop);
// Writes what waits, and closes all files.
void appender_free(struct appender *appender);
// Copies the line. What becomes of it is told in the log when it cannot be written.
int appender_put(struct appender *appender, const struct appended *line);
// A helper thread is at work: the loop will hear of it. For the spec kit, which waits for nothing else.
bool appender_is_writing(const struct appender *appender);
