// SPDX-License-Identifier: Apache-2.0
// Appends lines to files. Each file has two buffers: one that lines come into, one that a helper thread writes.
//
//   appender_put -> waiting --(256 KB, or 100 ms after the first line)--> batch -> errand: open, one write -> on_written
#include "appender.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errands.h"
#include "text.h"

enum {
  FILES_MOST = 64,
  BATCH_BYTES = 256 * 1024,       // a thread is started for each: with less its start costs more than the write
  WAITING_MOST = 8 * 1024 * 1024, // of one file
  BUFFER_KEPT = 1024 * 1024,      // a buffer that grew beyond it is given back
  DELAY_US = 100 * 1000,
  SAY_EVERY_US = 10 * 1000 * 1000,
  PIPE_PATIENCE_MS = 1000, // for who reads from a pipe
  FILE_MODE = 0644
};

struct lines {
  struct text text;
  int64_t count;
  bool reopen;
};

struct file {
  struct errand errand; // first: the one is the other
  struct timer timer;   // set while lines wait for company
  struct appender *appender;
  char *path;
  struct lines waiting;
  bool writing; // the errand is under way: what follows belongs to its thread
  struct lines batch;
  int fd;          // -1: closed
  bool torn;       // the last write ended inside a line
  int error;       // errno of the batch, 0: it has been written
  int64_t lost;    // lines since the log told of it
  int64_t said_us; // when it did, 0: never
  int64_t used_us;
};

struct appender {
  struct loop *loop;
  struct errands *errands;
  struct file *files[FILES_MOST];
  uint32_t count;
  bool closing; // nothing waits for company any more
};

// ---- On the helper thread ----

static bool is_the_one_open(const struct file *file) {
  struct stat there, here;
  if (fstat(file->fd, &here) < 0 || stat(file->path, &there) < 0) return false;
  return here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

static void file_shut(struct file *file) {
  if (file->fd >= 0) close(file->fd);
  file->fd = -1;
}

// Without O_NONBLOCK a pipe that nobody reads would hold the thread for ever.
static int file_open(struct file *file) {
  if (file->fd >= 0 && is_the_one_open(file)) return 0;
  file_shut(file);
  file->fd = open(file->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, FILE_MODE);
  return file->fd < 0 ? errno : 0;
}

static int wait_for_reader(const struct file *file) {
  struct pollfd poller = {.fd = file->fd, .events = POLLOUT};
  int ready = poll(&poller, 1, PIPE_PATIENCE_MS);
  return ready > 0 ? 0 : ready < 0 ? errno : ETIMEDOUT;
}

static int file_write(struct file *file, const char *data, size_t len) {
  while (len > 0) {
    ssize_t n = write(file->fd, data, len);
    int problem = n >= 0 ? 0 : errno;
    if (problem == EAGAIN) problem = wait_for_reader(file);
    if (problem && problem != EINTR) return problem;
    if (n <= 0) continue;
    file->torn = data[n - 1] != '\n';
    data += n;
    len -= (size_t)n;
  }
  return 0;
}

static void batch_write(struct errand *errand) {
  struct file *file = (struct file *)errand;
  file->error = file_open(file);
  if (!file->error && file->torn) file->error = file_write(file, "\n", 1);
  if (!file->error) file->error = file_write(file, file->batch.text.data, file->batch.text.len);
  if (file->batch.reopen || file->error) file_shut(file);
}

// ---- On the loop ----

static void file_say_lost(struct file *file, const char *why) {
  struct loop *loop = file->appender->loop;
  char number[32];
  if (file->said_us && loop->clock.mono_us - file->said_us < SAY_EVERY_US) return;
  log_error(loop->log, "lines for a file were lost", "path", file->path, "error", why, "lines",
            log_number(number, file->lost));
  file->said_us = loop->clock.mono_us;
  file->lost = 0;
}

static void lines_clear(struct lines *lines) {
  if (lines->text.room > BUFFER_KEPT)
    text_free(&lines->text);
  else
    lines->text.len = 0;
  lines->count = 0;
}

static void batch_submit(struct file *file) {
  struct lines empty = file->batch;
  timer_cancel(&file->appender->loop->timers, &file->timer);
  file->batch = file->waiting;
  file->waiting = empty;
  file->writing = true;
  errands_submit(file->appender->errands, &file->errand);
}

static void on_delay(struct timer *timer) {
  struct file *file = (struct file *)((char *)timer - offsetof(struct file, timer));
  if (!file->writing && file->waiting.count) batch_submit(file);
}

// Sends the waiting lines on their way when there are enough of them, else a little later.
static void file_hurry(struct file *file) {
  struct loop *loop = file->appender->loop;
  bool enough = file->waiting.text.len >= BATCH_BYTES || file->appender->closing;
  if (file->writing || !file->waiting.count || (!enough && file->timer.slot >= 0)) return;
  if (enough || timer_set(&loop->timers, &file->timer, loop->clock.mono_us + DELAY_US) < 0) batch_submit(file);
}

static void on_written(struct errand *errand) {
  struct file *file = (struct file *)errand;
  file->writing = false;
  if (file->error) {
    file->lost += file->batch.count;
    file_say_lost(file, strerror(file->error));
  }
  lines_clear(&file->batch);
  file_hurry(file);
}

// ---- Files ----

static void file_free(struct file *file) {
  timer_cancel(&file->appender->loop->timers, &file->timer);
  file_shut(file);
  text_free(&file->waiting.text);
  text_free(&file->batch.text);
  free(file->path);
  free(file);
}

static struct file *file_new(struct appender *appender, const char *path) {
  struct file *file = calloc(1, sizeof *file);
  if (!file) return NULL;
  file->errand.run = batch_write;
  file->errand.on_done = on_written;
  file->appender = appender;
  file->path = strdup(path);
  file->fd = -1;
  timer_init(&file->timer, on_delay);
  if (file->path) return file;
  free(file);
  return NULL;
}

// The place of the file that has been idle for longest; -1: all are busy.
static int place_to_give_up(const struct appender *appender) {
  int found = -1;
  for (int i = 0; i < FILES_MOST; i++) {
    const struct file *file = appender->files[i];
    if (file->writing || file->waiting.count) continue;
    if (found < 0 || file->used_us < appender->files[found]->used_us) found = i;
  }
  return found;
}

static struct file *file_add(struct appender *appender, const char *path) {
  int place = appender->count < FILES_MOST ? (int)appender->count : place_to_give_up(appender);
  struct file *file = place < 0 ? NULL : file_new(appender, path);
  if (!file) return NULL;
  if (place == (int)appender->count)
    appender->count++;
  else
    file_free(appender->files[place]);
  appender->files[place] = file;
  return file;
}

static struct file *file_find(struct appender *appender, const char *path) {
  for (uint32_t i = 0; i < appender->count; i++)
    if (strcmp(appender->files[i]->path, path) == 0) return appender->files[i];
  return file_add(appender, path);
}

// ---- All ----

struct appender *appender_new(struct loop *loop) {
  struct appender *appender = calloc(1, sizeof *appender);
  if (!appender) return NULL;
  appender->loop = loop;
  appender->errands = errands_new(loop, 1); // one thread: batches of a file keep their order
  if (appender->errands) return appender;
  free(appender);
  return NULL;
}

int appender_put(struct appender *appender, const struct appended *line) {
  struct file *file = file_find(appender, line->path);
  if (!file) return APPENDER_FULL;
  file->used_us = appender->loop->clock.mono_us;
  if (file->waiting.text.len + line->len >= WAITING_MOST) {
    file->lost++;
    file_say_lost(file, "too much waits to be written");
    return APPENDER_FULL;
  }
  file->waiting.reopen = line->reopen;
  text_put(&file->waiting.text, line->line, line->len);
  if (!line->len || line->line[line->len - 1] != '\n') text_put(&file->waiting.text, "\n", 1);
  file->waiting.count++;
  file_hurry(file);
  return APPENDER_OK;
}

void appender_free(struct appender *appender) {
  appender->closing = true;
  for (uint32_t i = 0; i < appender->count; i++) file_hurry(appender->files[i]);
  errands_free(appender->errands);
  for (uint32_t i = 0; i < appender->count; i++) file_free(appender->files[i]);
  free(appender);
}

bool appender_is_writing(const struct appender *appender) {
  return errands_pending(appender->errands) > 0;
}
