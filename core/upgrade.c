// SPDX-License-Identifier: Apache-2.0
// Hands everything that must outlive a master to the next one.
#include "upgrade.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "text.h"

static const char variable[] = "SLUICE_INHERIT";

struct upgrade {
  ev_io readable;
  ev_timer deadline;
  struct loop *loop;
  struct upgrade_options options;
  pid_t pid;
  int fd;
  struct text said;
};

// ---- The new process --------------------------------------------------------------------------------------------

static int fd_take(const char *text) {
  int fd = atoi(text);
  return fd > STDERR_FILENO && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? fd : -1;
}

static int line_take(struct inheritance *inheritance, const char *line, struct error *error) {
  if (strncmp(line, "listen=", 7) == 0) return listeners_import(&inheritance->listeners, line + 7, error);
  if (strncmp(line, "tickets=", 8) == 0) inheritance->tickets_fd = fd_take(line + 8);
  if (strncmp(line, "lock=", 5) == 0) inheritance->lock_fd = fd_take(line + 5);
  if (strncmp(line, "ready=", 6) == 0) inheritance->ready_fd = fd_take(line + 6);
  return 0;
}

int inheritance_take(struct inheritance *inheritance, struct error *error) {
  *inheritance = (struct inheritance){.tickets_fd = -1, .lock_fd = -1, .ready_fd = -1};
  const char *value = getenv(variable);
  if (!value) return 0;
  char *lines = strdup(value), *rest = NULL;
  int result = 0;
  assert(lines);
  unsetenv(variable);
  for (char *line = strtok_r(lines, "\n", &rest); line && result == 0; line = strtok_r(NULL, "\n", &rest))
    result = line_take(inheritance, line, error);
  free(lines);
  return result;
}

// ---- The old one ------------------------------------------------------------------------------------------------

static void fd_pass(int fd, const char *name, struct text *lines) {
  if (fd < 0) return;
  fcntl(fd, F_SETFD, 0);
  text_printf(lines, "%s=%d\n", name, fd);
}

// In the child: everything named crosses the exec, nothing else does.
static void become(const struct upgrade_options *options, const struct inheritance *inheritance) {
  struct text lines = {0};
  for (uint32_t i = 0; i < inheritance->listeners.count; i++)
    fcntl(inheritance->listeners.all[i].socket.fd, F_SETFD, 0);
  listeners_export(&inheritance->listeners, &lines);
  fd_pass(inheritance->tickets_fd, "tickets", &lines);
  fd_pass(inheritance->lock_fd, "lock", &lines);
  fd_pass(inheritance->ready_fd, "ready", &lines);
  setenv(variable, lines.data, 1);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execv(options->program, options->argv);
  dprintf(inheritance->ready_fd, "failed cannot execute %s: %s\n", options->program, strerror(errno));
  _exit(127);
}

static void upgrade_free(struct upgrade *upgrade) {
  ev_io_stop(upgrade->loop->ev, &upgrade->readable);
  ev_timer_stop(upgrade->loop->ev, &upgrade->deadline);
  close(upgrade->fd);
  text_free(&upgrade->said);
  free(upgrade);
}

static void upgrade_done(struct upgrade *upgrade, const char *failure) {
  struct upgrade_options options = upgrade->options;
  char reason[512];
  if (failure) snprintf(reason, sizeof reason, "%s", failure);
  if (failure) kill(upgrade->pid, SIGKILL);
  upgrade_free(upgrade);
  options.on_done(options.context, failure ? reason : NULL);
}

void upgrade_cancel(struct upgrade *upgrade) {
  kill(upgrade->pid, SIGKILL);
  upgrade_free(upgrade);
}

// Reads what the new process said. True when that ended the upgrade, which is freed then.
static bool upgrade_listen(struct upgrade *upgrade) {
  char bytes[512];
  ssize_t n;
  while ((n = read(upgrade->fd, bytes, sizeof bytes)) > 0) text_put(&upgrade->said, bytes, (size_t)n);
  if (n == 0) ev_io_stop(upgrade->loop->ev, &upgrade->readable); // SIGCHLD tells the rest
  char *end = upgrade->said.data ? strchr(upgrade->said.data, '\n') : NULL;
  if (!end) return false;
  *end = 0;
  bool ready = strcmp(upgrade->said.data, "ready") == 0;
  bool failed = strncmp(upgrade->said.data, "failed ", 7) == 0;
  upgrade_done(upgrade, ready ? NULL : upgrade->said.data + (failed ? 7 : 0));
  return true;
}

static void on_readable(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev, (void)events;
  upgrade_listen(watcher->data);
}

static void on_deadline(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  upgrade_done(timer->data, "the new process was not ready in time");
}

struct upgrade *upgrade_start(struct loop *loop, const struct upgrade_options *options,
                              const struct inheritance *inheritance, struct error *error) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) {
    error_system(error, "pipe");
    return NULL;
  }
  struct inheritance given = *inheritance;
  given.ready_fd = ends[1];
  pid_t pid = fork();
  if (pid == 0) become(options, &given);
  close(ends[1]);
  if (pid < 0) {
    error_system(error, "fork");
    close(ends[0]);
    return NULL;
  }
  struct upgrade *upgrade = calloc(1, sizeof *upgrade);
  assert(upgrade);
  *upgrade = (struct upgrade){.loop = loop, .options = *options, .pid = pid, .fd = ends[0]};
  fcntl(upgrade->fd, F_SETFL, O_NONBLOCK);
  ev_io_init(&upgrade->readable, on_readable, upgrade->fd, EV_READ);
  ev_timer_init(&upgrade->deadline, on_deadline, (double)options->timeout_ms / 1000.0, 0);
  upgrade->readable.data = upgrade->deadline.data = upgrade;
  ev_io_start(loop->ev, &upgrade->readable);
  ev_timer_start(loop->ev, &upgrade->deadline);
  return upgrade;
}

pid_t upgrade_pid(const struct upgrade *upgrade) {
  return upgrade->pid;
}

void upgrade_exited(struct upgrade *upgrade, int status) {
  char end[96], failure[160];
  if (upgrade_listen(upgrade)) return; // it had said why
  snprintf(failure, sizeof failure, "the new process %s", child_end(status, end, sizeof end));
  upgrade_done(upgrade, failure);
}
