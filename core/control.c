// SPDX-License-Identifier: Apache-2.0
// Lines over a local stream socket.
#include "control.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

enum { READ_BYTES = 65536 };

struct control {
  ev_io reading, writing;
  struct loop *loop;
  int fd;
  const struct control_handler *handler;
  void *context;
  struct text in, out;
  size_t scanned; // bytes of `in` known to hold no LF
  bool finishing;
  bool busy;   // a handler runs: control_close only notes its wish
  bool closed; // control_close was called
};

static void control_free(struct control *control) {
  text_free(&control->in);
  text_free(&control->out);
  free(control);
}

void control_close(struct control *control) {
  if (control->closed) return;
  control->closed = true;
  ev_io_stop(control->loop->ev, &control->reading);
  ev_io_stop(control->loop->ev, &control->writing);
  close(control->fd);
  control->fd = -1;
  if (!control->busy) control_free(control);
}

// Calls on_close, after which the connection may be no more.
static void control_lost(struct control *control) {
  ev_io_stop(control->loop->ev, &control->reading);
  ev_io_stop(control->loop->ev, &control->writing);
  control->busy = true;
  control->handler->on_close(control->context);
  control->busy = false;
  if (control->closed) control_free(control);
}

static void control_lines(struct control *control) {
  size_t start = 0;
  char *end;
  while ((end = memchr(control->in.data + control->scanned, '\n', control->in.len - control->scanned))) {
    size_t at = (size_t)(end - control->in.data);
    *end = 0;
    control->scanned = at + 1;
    control->busy = true;
    control->handler->on_line(control->context, control->in.data + start, (uint32_t)(at - start));
    control->busy = false;
    if (control->closed) {
      control_free(control);
      return;
    }
    start = at + 1;
  }
  text_drop(&control->in, start);
  control->scanned = control->in.len;
  if (control->in.len > CONTROL_LINE_MAX) control_lost(control);
}

static void on_readable(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev, (void)events;
  struct control *control = watcher->data;
  char bytes[READ_BYTES];
  ssize_t n = read(control->fd, bytes, sizeof bytes);
  if (n > 0) {
    text_put(&control->in, bytes, (size_t)n);
    control_lines(control);
  } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
    control_lost(control);
  }
}

// 0, or ERROR_CLOSED.
static int control_flush(struct control *control) {
  size_t sent = 0;
  while (sent < control->out.len) {
    ssize_t n = send(control->fd, control->out.data + sent, control->out.len - sent, MSG_NOSIGNAL);
    if (n > 0)
      sent += (size_t)n;
    else if (errno == EAGAIN)
      break;
    else if (errno != EINTR)
      return ERROR_CLOSED;
  }
  text_drop(&control->out, sent);
  if (control->out.len)
    ev_io_start(control->loop->ev, &control->writing);
  else
    ev_io_stop(control->loop->ev, &control->writing);
  return 0;
}

static void on_writable(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev, (void)events;
  struct control *control = watcher->data;
  int failed = control_flush(control);
  // A peer that no longer reads may still have sent lines: its end is told by the reading side.
  if (failed) ev_io_stop(control->loop->ev, &control->writing);
  if (control->finishing && (failed || control->out.len == 0)) control_lost(control);
}

struct control *control_open(struct loop *loop, int fd, const struct control_handler *handler, void *context) {
  struct control *control = calloc(1, sizeof *control);
  if (!control) return NULL;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  control->loop = loop;
  control->fd = fd;
  control->handler = handler;
  control->context = context;
  ev_io_init(&control->reading, on_readable, fd, EV_READ);
  ev_io_init(&control->writing, on_writable, fd, EV_WRITE);
  control->reading.data = control->writing.data = control;
  ev_io_start(loop->ev, &control->reading);
  return control;
}

int control_send(struct control *control, const char *line, uint32_t len) {
  if (control->closed) return ERROR_CLOSED;
  if (control->out.len > CONTROL_LINE_MAX) return ERROR_MEMORY;
  text_put(&control->out, line, len);
  text_put(&control->out, "\n", 1);
  return control_flush(control);
}

void control_finish(struct control *control) {
  if (control->closed) return;
  control->finishing = true;
  // Through the loop even when nothing waits: the caller may be a handler of this very connection.
  ev_io_start(control->loop->ev, &control->writing);
}

// ---- The socket's path ------------------------------------------------------------------------------------------

// sun_path holds 107 bytes, and a state_dir may be deeper: then the folder is named by a descriptor, left in `folder`
// (else -1) to be closed after bind or connect. 0, or a negative code.
static int path_set(struct sockaddr_un *address, const char *path, int *folder, struct error *error) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  *folder = -1;
  if (strlen(path) < sizeof address->sun_path) {
    strcpy(address->sun_path, path);
    return 0;
  }
  char name[4096];
  const char *slash = strrchr(path, '/');
  if (!slash || (size_t)(slash - path) >= sizeof name || strlen(slash) > 64)
    return error_set(error, ERROR_INVALID, "the path of the control socket is too long: %s", path);
  snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
  *folder = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (*folder < 0) return error_system(error, "cannot open %s", name);
  snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d%.64s", *folder, slash);
  return 0;
}

typedef int (*socket_call)(int fd, const struct sockaddr *address, socklen_t len);

static int socket_at(const char *path, socket_call call, struct error *error) {
  struct sockaddr_un address;
  int folder;
  int code = path_set(&address, path, &folder, error);
  if (code < 0) return code;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool failed = fd < 0 || call(fd, (struct sockaddr *)&address, sizeof address) < 0;
  if (failed) error_system(error, "control socket %s", path);
  if (failed && fd >= 0) close(fd);
  if (folder >= 0) close(folder);
  return failed ? ERROR_SYSTEM : fd;
}

int control_listen(const char *path, struct error *error) {
  unlink(path);
  mode_t mask = umask(0177);
  int fd = socket_at(path, bind, error);
  umask(mask);
  if (fd < 0) return fd;
  if (listen(fd, 16) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
    error_system(error, "control socket %s", path);
    close(fd);
    return ERROR_SYSTEM;
  }
  return fd;
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int answer_read(int fd, int64_t deadline, struct text *answer, struct error *error) {
  for (;;) {
    int64_t left = deadline - now_ms();
    struct pollfd item = {.fd = fd, .events = POLLIN};
    if (left <= 0 || poll(&item, 1, (int)left) == 0) return error_set(error, ERROR_TIMEOUT, "no answer in time");
    char bytes[8192];
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n == 0) return 0;
    if (n > 0)
      text_put(answer, bytes, (size_t)n);
    else if (errno == ECONNRESET)
      return 0; // stopped at once: what came is all
    else if (errno != EINTR)
      return error_system(error, "control socket");
  }
}

int control_ask(const char *path, const char *line, int64_t timeout_ms, struct text *answer, struct error *error) {
  int fd = socket_at(path, connect, error);
  if (fd < 0) return fd;
  int result;
  struct text sent = {0};
  text_printf(&sent, "%s\n", line);
  if (send(fd, sent.data, sent.len, MSG_NOSIGNAL) != (ssize_t)sent.len)
    result = error_system(error, "control socket %s", path);
  else
    result = answer_read(fd, now_ms() + timeout_ms, answer, error);
  text_free(&sent);
  close(fd);
  return result;
}
