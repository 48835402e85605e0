// SPDX-License-Identifier: Apache-2.0
// Runs the checker and gathers what it prints. Done when its output has ended and its exit code is known, in either order.
#include "check.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "settings.h"
#include "text.h"
#include "title.h"

struct check {
  ev_io readable;
  ev_timer deadline;
  struct loop *loop;
  struct check_options options;
  pid_t pid;
  int fd;
  struct text out;
  struct settings *settings;
  bool ended, exited, late;
  bool again; // this is the second attempt
  int status;
};

static void check_free(struct check *check) {
  ev_io_stop(check->loop->ev, &check->readable);
  ev_timer_stop(check->loop->ev, &check->deadline);
  if (check->fd >= 0) close(check->fd);
  text_free(&check->out);
  settings_free(check->settings);
  free(check);
}

static void lines_take(struct check *check) {
  size_t start = 0;
  char *end;
  while (start < check->out.len && (end = memchr(check->out.data + start, '\n', check->out.len - start))) {
    *end = 0;
    settings_line(check->settings, check->out.data + start);
    start = (size_t)(end - check->out.data) + 1;
  }
  text_drop(&check->out, start);
}

// An exit that explains nothing gets an explanation; success needs a snapshot.
static void settings_judge(struct check *check) {
  struct settings *settings = check->settings;
  char end[96];
  if (settings->error_count) return;
  if (check->late)
    settings_fail(settings, "loading took longer than %lld ms; does a plugin loop where it is loaded?",
                  (long long)check->options.timeout_ms);
  else if (check->status != 0)
    settings_fail(settings, "the checker %s; the log may say why", child_end(check->status, end, sizeof end));
  else if (!settings->snapshot || !settings->state_dir || settings->revision == 0)
    settings_fail(settings, "the checker gave no snapshot");
}

static int check_fork(struct check *check);

// A checker that was killed by a signal says nothing of the configuration: it gets one more chance.
static bool check_again(struct check *check) {
  if (check->again || check->late || !WIFSIGNALED(check->status)) return false;
  char end[96];
  log_warn(check->loop->log, "the checker died and is started once more", "end",
           child_end(check->status, end, sizeof end));
  ev_timer_stop(check->loop->ev, &check->deadline);
  close(check->fd);
  check->fd = -1;
  text_free(&check->out);
  settings_free(check->settings);
  check->settings = settings_new();
  check->again = true;
  check->ended = check->exited = false;
  return check_fork(check) == 0;
}

static void check_advance(struct check *check) {
  if (!check->ended || !check->exited || check_again(check)) return;
  settings_judge(check);
  struct settings *settings = check->settings;
  struct check_options options = check->options;
  check->settings = NULL;
  check_free(check);
  options.on_done(options.context, settings);
}

static void on_readable(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)events;
  struct check *check = watcher->data;
  char bytes[16384];
  ssize_t n = read(check->fd, bytes, sizeof bytes);
  if (n > 0) {
    text_put(&check->out, bytes, (size_t)n);
    lines_take(check);
  } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
    ev_io_stop(ev, watcher);
    check->ended = true;
    check_advance(check);
  }
}

static void on_deadline(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  struct check *check = timer->data;
  check->late = true;
  kill(check->pid, SIGKILL);
}

static void checker_run(const struct check_options *options, int out) {
  dup2(out, STDOUT_FILENO);
  close(out);
  title_set(options->title, "sluice: checker");
  exit(options->run(options->run_context));
}

static int check_fork(struct check *check) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ERROR_SYSTEM;
  pid_t pid = child_fork(&ends[1], 1);
  if (pid == 0) checker_run(&check->options, ends[1]);
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return ERROR_SYSTEM;
  }
  check->pid = pid;
  check->fd = ends[0];
  fcntl(check->fd, F_SETFL, O_NONBLOCK);
  ev_io_init(&check->readable, on_readable, check->fd, EV_READ);
  ev_timer_init(&check->deadline, on_deadline, (double)check->options.timeout_ms / 1000.0, 0);
  check->readable.data = check->deadline.data = check;
  ev_io_start(check->loop->ev, &check->readable);
  ev_timer_start(check->loop->ev, &check->deadline);
  return 0;
}

struct check *check_start(struct loop *loop, const struct check_options *options) {
  struct check *check = calloc(1, sizeof *check);
  assert(check);
  *check = (struct check){.loop = loop, .options = *options, .fd = -1, .settings = settings_new()};
  if (check_fork(check) == 0) return check;
  settings_free(check->settings);
  free(check);
  return NULL;
}

pid_t check_pid(const struct check *check) {
  return check->pid;
}

void check_exited(struct check *check, int status) {
  check->exited = true;
  check->status = status;
  check_advance(check);
}

void check_cancel(struct check *check) {
  if (!check->exited) kill(check->pid, SIGKILL);
  check_free(check);
}
