// SPDX-License-Identifier: Apache-2.0
// The parent process: its life, signals and commands. How a generation comes about is in reload.c.
#include "master.h"

#include <assert.h>
#include <ev.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "counters.h"
#include "desk.h"
#include "endpoint.h"
#include "reload.h"
#include "statedir.h"
#include "status.h"
#include "text.h"
#include "tickets.h"
#include "title.h"
#include "upgrade.h"
#include "watch.h"
#include "workers.h"

enum {
  COUNTER_SLOTS = 262144, // 16 MB of address space, memory only where used
  COUNTER_TEXT_BYTES = 8388608,
  ENDPOINT_SLOTS = 16384, // 10 MB of address space, likewise
  CHECK_MS = 60000,
  STAGE_MS = 60000,
  UPGRADE_MS = 120000,
  DRAIN_MS = 30000,
  STATUS_WAIT_MS = 1000,
  PROFILE_WAIT_MS = 2000,
  PROFILE_BYTES = 64 << 20 // of all workers' answers
};

enum master_state {
  MASTER_STARTING, // the first configuration is on its way
  MASTER_RUNNING,
  MASTER_DRAINING // will exit
};

static const char *const state_names[] = {"starting", "running", "draining"};

struct master {
  struct loop loop; // first
  struct log log;
  struct master_options options;
  enum master_state state;
  int exit_code;
  int64_t started_us; // since 1970
  struct inheritance inherited;
  int tickets_fd, lock_fd;
  struct ticket_keys *tickets;
  struct counters *counters;
  struct endpoints *endpoints;
  struct reload reload;
  struct workers *workers; // NULL before the first configuration was good
  struct watch *watch;
  struct desk *desk;
  struct upgrade *upgrade;
  bool owns_files;   // pid file and control socket: no other master has them still, or has taken them over
  int64_t status_id; // question to a worker that is out; 0: none
  int64_t last_status_id;
  int64_t
      profile_id; // question to all workers that is out, 0: none; how many have not answered, and what the rest said
  uint32_t profile_left;
  struct text profile;
  char log_path[STATEDIR_PATH];  // "": stderr
  char desk_path[STATEDIR_PATH]; // until it is moved to its final place
  int terminal; // standard error as it was before the log took its place, until the start has ended; -1
  int signals;
  ev_io signalled;
  ev_timer rotate, status_wait, profile_wait;
};

// The one place where the master changes its state.
static void master_move(struct master *master, enum master_state to) {
  static const bool legal[3][3] = {
      [MASTER_STARTING] = {[MASTER_RUNNING] = true, [MASTER_DRAINING] = true},
      [MASTER_RUNNING] = {[MASTER_DRAINING] = true},
      [MASTER_DRAINING] = {[MASTER_DRAINING] = true},
  };
  assert(legal[master->state][to]);
  master->state = to;
}

static int64_t environment_ms(const char *name, int64_t otherwise) {
  const char *value = getenv(name);
  int64_t ms = value ? strtoll(value, NULL, 10) : 0;
  return ms > 0 ? ms : otherwise;
}

// ---- The end ----------------------------------------------------------------------------------------------------

static void on_empty(void *context) {
  struct master *master = context;
  ev_break(master->loop.ev, EVBREAK_ALL);
}

static void master_drain(struct master *master, int64_t ms) {
  master_move(master, MASTER_DRAINING);
  reload_stop(&master->reload);
  if (master->workers)
    workers_drain(master->workers, ms);
  else
    on_empty(master);
}

static void master_quit(struct master *master, const char *reason) {
  const struct settings *settings = master->reload.settings;
  int64_t ms = settings ? (int64_t)settings_limit(settings, "drain_timeout", DRAIN_MS) : DRAIN_MS;
  char text[32];
  log_notice(&master->log, "draining", "reason", reason, "limit_ms", log_number(text, ms));
  master_drain(master, ms);
}

static void master_stop(struct master *master, const char *reason) {
  log_notice(&master->log, "stopping", "reason", reason);
  master_drain(master, 0);
}

// ---- The start --------------------------------------------------------------------------------------------------

static void ready_tell(struct master *master, const char *line) {
  if (master->options.ready_fd < 0) return;
  dprintf(master->options.ready_fd, "%s\n", line);
  close(master->options.ready_fd);
  master->options.ready_fd = -1;
}

// Says why where somebody reads it, and the first reason to the process that waits.
static void start_fail(struct master *master, const struct settings *refused) {
  struct text line = {0};
  for (uint32_t i = 0; i < refused->error_count; i++) {
    struct text sentence = {0};
    error_sentence(refused->errors[i], &sentence);
    dprintf(STDERR_FILENO, "sluice: %s\n", sentence.data);
    if (master->terminal >= 0) dprintf(master->terminal, "sluice: %s\n", sentence.data);
    if (i == 0) text_printf(&line, "failed %s", sentence.data);
    text_free(&sentence);
  }
  ready_tell(master, line.data);
  text_free(&line);
  master->exit_code = 1;
  master_drain(master, 0);
}

static int state_take(struct master *master, const struct settings *settings, struct error *error) {
  master->lock_fd = master->inherited.lock_fd;
  if (master->lock_fd < 0) master->lock_fd = statedir_lock(settings->state_dir, error);
  if (master->lock_fd < 0) return master->lock_fd;
  if (!master->options.daemon) return 0;
  statedir_path(settings->state_dir, "sluice.log", master->log_path);
  master->terminal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  return statedir_log_to(master->log_path, error);
}

static void on_command(void *context, enum desk_command command);

// Puts control socket and pid file where they are looked for.
static void files_place(struct master *master, const struct settings *settings) {
  struct error error;
  char path[STATEDIR_PATH];
  if (rename(master->desk_path, statedir_path(settings->state_dir, "control.sock", path)) == 0)
    strcpy(master->desk_path, path);
  if (statedir_write_pid(settings->state_dir, (int32_t)getpid(), &error) < 0)
    log_error(&master->log, "no pid file", "reason", error.text);
}

// The control socket is made beside its place. A master that takes over from another moves it there only when it is
// live: until then the other one stays reachable.
static int desk_make(struct master *master, const struct settings *settings, struct error *error) {
  char name[48];
  snprintf(name, sizeof name, "control.%d.sock", (int)getpid());
  statedir_path(settings->state_dir, name, master->desk_path);
  master->desk = desk_open(&master->loop, master->desk_path, on_command, master, error);
  if (!master->desk) return error->code;
  master->owns_files = master->inherited.lock_fd < 0;
  if (master->owns_files) files_place(master, settings);
  return 0;
}

static void on_settled(void *context, int64_t revision, const char *failure) {
  (void)revision;
  struct master *master = context;
  reload_settled(&master->reload, failure);
}

static void on_status(void *context, int64_t id, const char *json);
static void on_profile(void *context, int64_t id, const char *json);

static struct workers *workers_make(struct master *master, struct error *error) {
  master->counters = counters_new(COUNTER_SLOTS, COUNTER_TEXT_BYTES, error);
  if (!master->counters) return NULL;
  master->endpoints = endpoints_new(ENDPOINT_SLOTS, error);
  if (!master->endpoints) return NULL;
  struct workers_options options = {.loop = &master->loop,
                                    .title = master->options.title,
                                    .home = master->options.home,
                                    .log_path = *master->log_path ? master->log_path : NULL,
                                    .counters = master->counters,
                                    .endpoints = master->endpoints,
                                    .tickets = master->tickets,
                                    .embedded = &master->reload.embedded,
                                    .stage_ms = STAGE_MS,
                                    .on_settled = on_settled,
                                    .on_status = on_status,
                                    .on_profile = on_profile,
                                    .on_empty = on_empty,
                                    .context = master};
  return workers_new(&options);
}

static struct workers *on_first(void *context, const struct settings *settings, struct error *error) {
  struct master *master = context;
  if (state_take(master, settings, error) < 0) return NULL;
  if (desk_make(master, settings, error) < 0) return NULL;
  master->workers = workers_make(master, error);
  return master->workers;
}

static void log_listeners(struct master *master) {
  const struct listeners *listeners = &master->reload.listeners;
  for (uint32_t i = 0; i < listeners->count; i++) {
    const struct listen_entry *entry = &listeners->all[i];
    if (entry->worker > 1) continue;
    log_notice(&master->log, "listening", "address", entry->socket.address, "for", listen_kind_name(entry->socket.kind),
               "flags", entry->socket.flags);
  }
}

static void start_succeeded(struct master *master) {
  char pid[32];
  const char *state_dir = master->reload.settings->state_dir;
  master_move(master, MASTER_RUNNING);
  log_listeners(master);
  if (!master->owns_files) files_place(master, master->reload.settings);
  master->owns_files = true;
  log_notice(&master->log, "running", "version", master->options.version, "pid", log_number(pid, getpid()), "state_dir",
             state_dir);
  ready_tell(master, "ready");
  if (master->terminal >= 0) close(master->terminal);
  master->terminal = -1;
}

static void on_begin(void *context) {
  struct master *master = context;
  if (master->desk) desk_begin(master->desk, DESK_RELOAD);
}

static void reload_answer(struct master *master) {
  struct text answer = {0};
  outcome_describe(&master->reload.history.last, &answer);
  desk_answer(master->desk, DESK_RELOAD, answer.data);
  text_free(&answer);
  if (desk_waits(master->desk, DESK_RELOAD)) reload_ask(&master->reload, "command");
}

static void on_end(void *context, const struct settings *refused) {
  struct master *master = context;
  if (master->state == MASTER_RUNNING)
    reload_answer(master);
  else if (refused)
    start_fail(master, refused);
  else
    start_succeeded(master);
}

static void on_changed(void *context, const char *path) {
  struct master *master = context;
  char reason[REASON_BYTES];
  snprintf(reason, sizeof reason, "changed %s", path);
  if (master->state != MASTER_DRAINING) reload_ask(&master->reload, reason);
}

// ---- Status -----------------------------------------------------------------------------------------------------

static void status_answer(struct master *master, const char *worker_json) {
  struct text out = {0};
  clock_update(&master->loop.clock);
  struct status_facts facts = {.version = master->options.version,
                               .state = master->upgrade ? "upgrading" : state_names[master->state],
                               .started_us = master->started_us,
                               .now_us = master->loop.clock.real_us,
                               .files = master->options.files,
                               .file_count = master->options.file_count,
                               .settings = master->reload.settings,
                               .history = &master->reload.history,
                               .listeners = &master->reload.listeners,
                               .workers = master->workers,
                               .worker_json = worker_json};
  status_describe(&facts, &out);
  master->status_id = 0;
  ev_timer_stop(master->loop.ev, &master->status_wait);
  desk_answer(master->desk, DESK_STATUS, out.data);
  text_free(&out);
}

// A worker that is busy or gone must not keep the answer back.
static void on_status_wait(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  status_answer(timer->data, NULL);
}

static void status_ask(struct master *master) {
  if (master->status_id) return;
  desk_begin(master->desk, DESK_STATUS);
  master->status_id = ++master->last_status_id;
  ev_timer_set(&master->status_wait, STATUS_WAIT_MS / 1000.0, 0);
  ev_timer_start(master->loop.ev, &master->status_wait);
  if (!master->workers || !workers_ask(master->workers, master->status_id)) status_answer(master, NULL);
}

static void on_status(void *context, int64_t id, const char *json) {
  struct master *master = context;
  if (id != master->status_id) return; // too late
  status_answer(master, json);
  if (desk_waits(master->desk, DESK_STATUS)) status_ask(master);
}

// ---- Profile ----------------------------------------------------------------------------------------------------

static void profile_ask(struct master *master);

static void profile_answer(struct master *master) {
  ev_timer_stop(master->loop.ev, &master->profile_wait);
  text_puts(&master->profile, "]}");
  desk_answer(master->desk, DESK_PROFILE, master->profile.data);
  text_free(&master->profile);
  master->profile = (struct text){0};
  master->profile_id = 0;
  if (desk_waits(master->desk, DESK_PROFILE)) profile_ask(master);
}

static void on_profile_wait(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  profile_answer(timer->data);
}

static void profile_ask(struct master *master) {
  if (master->profile_id) return;
  desk_begin(master->desk, DESK_PROFILE);
  master->profile_id = ++master->last_status_id;
  text_puts(&master->profile, "{\"workers\":[");
  ev_timer_set(&master->profile_wait, PROFILE_WAIT_MS / 1000.0, 0);
  ev_timer_start(master->loop.ev, &master->profile_wait);
  master->profile_left = master->workers ? workers_profile(master->workers, master->profile_id) : 0;
  if (master->profile_left == 0) profile_answer(master);
}

static void on_profile(void *context, int64_t id, const char *json) {
  struct master *master = context;
  if (id != master->profile_id) return; // too late
  size_t len = strlen(json);
  if (master->profile.len + len < PROFILE_BYTES) {
    if (master->profile.data[master->profile.len - 1] != '[') text_puts(&master->profile, ",");
    text_put(&master->profile, json, len);
  }
  if (--master->profile_left == 0) profile_answer(master);
}

// ---- Upgrade ----------------------------------------------------------------------------------------------------

// What came of a command that has no more to say than that.
static void plain_answer(struct master *master, enum desk_command command, const char *failure) {
  struct text out = {0};
  text_printf(&out, "{\"ok\":%s,\"pid\":%d,\"errors\":[", failure ? "false" : "true", (int)getpid());
  if (failure) {
    text_puts(&out, "{\"message\":");
    text_json(&out, failure);
    text_puts(&out, "}");
  }
  text_puts(&out, "]}");
  desk_begin(master->desk, command);
  desk_answer(master->desk, command, out.data);
  text_free(&out);
}

static void on_upgraded(void *context, const char *failure) {
  struct master *master = context;
  master->upgrade = NULL;
  plain_answer(master, DESK_UPGRADE, failure);
  if (failure) {
    log_error(&master->log, "upgrade failed, this process goes on", "reason", failure);
    return;
  }
  master->owns_files = false;
  *master->desk_path = 0;
  close(master->lock_fd); // the new process has the same lock; it shall not outlive that one here
  master->lock_fd = -1;
  if (master->state == MASTER_RUNNING) master_quit(master, "a new process has taken over");
}

static void upgrade_begin(struct master *master) {
  struct error error;
  struct upgrade_options options = {.program = master->options.program,
                                    .argv = master->options.argv,
                                    .timeout_ms = UPGRADE_MS,
                                    .on_done = on_upgraded,
                                    .context = master};
  struct inheritance given = {.listeners = master->reload.listeners,
                              .tickets_fd = master->tickets_fd,
                              .lock_fd = master->lock_fd,
                              .ready_fd = -1};
  if (master->upgrade) return; // who asks again gets the same answer
  log_notice(&master->log, "upgrading", "program", master->options.program);
  master->upgrade = upgrade_start(&master->loop, &options, &given, &error);
  if (!master->upgrade) on_upgraded(master, error.text);
}

// ---- Figures for `sluice top` ---------------------------------------------------------------------------------------

// What the workers' boards say at this moment: no worker is asked.
static void figures_answer(struct master *master) {
  struct text out = {0};
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  text_printf(&out, "{\"version\":\"%s\",\"pid\":%d,\"time\":%.6f,\"workers\":", master->options.version, (int)getpid(),
              (double)now.tv_sec + (double)now.tv_nsec / 1e9);
  if (master->workers)
    workers_measure(master->workers, &out);
  else
    text_puts(&out, "[]");
  text_puts(&out, "}");
  desk_begin(master->desk, DESK_TOP);
  desk_answer(master->desk, DESK_TOP, out.data);
  text_free(&out);
}

// ---- Commands and signals ---------------------------------------------------------------------------------------

static void command_end(struct master *master, enum desk_command command) {
  plain_answer(master, command, NULL);
  if (command == DESK_STOP)
    master_stop(master, "command");
  else if (master->state != MASTER_DRAINING)
    master_quit(master, "command");
}

static void on_command(void *context, enum desk_command command) {
  struct master *master = context;
  if (command == DESK_STATUS)
    status_ask(master);
  else if (command == DESK_TOP)
    figures_answer(master);
  else if (command == DESK_PROFILE)
    profile_ask(master);
  else if (command == DESK_QUIT || command == DESK_STOP)
    command_end(master, command);
  else if (master->state == MASTER_DRAINING)
    plain_answer(master, command, "the gateway is about to end");
  else if (command == DESK_RELOAD)
    reload_ask(&master->reload, "command");
  else if (master->state == MASTER_STARTING)
    plain_answer(master, command, "the gateway has not started yet");
  else
    upgrade_begin(master);
}

static void log_reopen(struct master *master) {
  struct error error;
  if (*master->log_path && statedir_log_to(master->log_path, &error) < 0)
    log_error(&master->log, "cannot open the log anew", "reason", error.text);
  if (master->workers) workers_tell(master->workers, "reopen");
}

static void children_reap(struct master *master) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (reload_reap(&master->reload, pid, status)) continue;
    const char *kafka = embedded_reap(&master->reload.embedded, pid);
    if (kafka) log_error(&master->log, "an embedded Kafka cluster has ended", "cluster", kafka);
    if (master->upgrade && pid == upgrade_pid(master->upgrade))
      upgrade_exited(master->upgrade, status);
    else if (master->workers)
      workers_reap(master->workers, pid, status);
  }
}

static void signal_end(struct master *master, const char *reason) {
  if (master->state == MASTER_DRAINING)
    master_stop(master, "a second signal");
  else
    master_quit(master, reason);
}

static void signal_take(struct master *master, int number) {
  switch (number) {
  case SIGCHLD: children_reap(master); break;
  case SIGHUP: reload_ask(&master->reload, "signal"); break;
  case SIGUSR1: log_reopen(master); break;
  case SIGUSR2:
    if (master->state == MASTER_RUNNING) upgrade_begin(master);
    break;
  default: signal_end(master, strsignal(number)); break;
  }
}

static void on_signalled(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev, (void)events;
  struct master *master = watcher->data;
  struct signalfd_siginfo info;
  while (read(master->signals, &info, sizeof info) == (ssize_t)sizeof info) signal_take(master, (int)info.ssi_signo);
}

// ---- Life -------------------------------------------------------------------------------------------------------

// Blocked before the first fork, so that no signal falls between.
static int signals_open(struct error *error) {
  static const int numbers[] = {SIGCHLD, SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&set, numbers[i]);
  sigprocmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  return fd < 0 ? error_system(error, "signals") : fd;
}

static void descriptors_raise(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_rotate(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  struct master *master = timer->data;
  tickets_rotate(master->tickets);
}

static void master_watch(struct master *master) {
  struct ev_loop *ev = master->loop.ev;
  ev_io_init(&master->signalled, on_signalled, master->signals, EV_READ);
  ev_timer_init(&master->rotate, on_rotate, TICKET_ROTATE_S, TICKET_ROTATE_S);
  ev_timer_init(&master->status_wait, on_status_wait, 0, 0);
  ev_set_priority(&master->status_wait, EV_MINPRI); // behind the answer that may lie there
  ev_timer_init(&master->profile_wait, on_profile_wait, 0, 0);
  master->signalled.data = master->rotate.data = master->status_wait.data = master->profile_wait.data = master;
  ev_io_start(ev, &master->signalled);
  ev_timer_start(ev, &master->rotate);
}

static int master_open(struct master *master, struct error *error) {
  int failed = inheritance_take(&master->inherited, error);
  if (failed) return failed;
  if (master->inherited.ready_fd >= 0) master->options.ready_fd = master->inherited.ready_fd;
  master->signals = signals_open(error);
  if (master->signals < 0) return master->signals;
  master->tickets_fd = master->inherited.tickets_fd;
  master->tickets = tickets_map(&master->tickets_fd, error);
  if (!master->tickets) return error->code;
  master->watch = watch_new(&master->loop, on_changed, master, error);
  if (!master->watch) return error->code;
  master_watch(master);
  struct reload_options options = {.loop = &master->loop,
                                   .watch = master->watch,
                                   .title = master->options.title,
                                   .check = master->options.check,
                                   .check_context = master->options.check_context,
                                   .check_ms = environment_ms("SLUICE_CHECK_TIMEOUT_MS", CHECK_MS),
                                   .on_first = on_first,
                                   .on_begin = on_begin,
                                   .on_end = on_end,
                                   .context = master};
  reload_init(&master->reload, &options, &master->inherited.listeners);
  return 0;
}

// What others would find although nothing runs any more, unless a new master has put its own there.
static void files_remove(struct master *master) {
  if (!*master->desk_path) return;
  unlink(master->desk_path);
  if (!master->owns_files) return;
  strcpy(strrchr(master->desk_path, '/') + 1, "sluice.pid");
  unlink(master->desk_path);
}

static void master_close(struct master *master) {
  files_remove(master);
  if (master->upgrade) upgrade_cancel(master->upgrade);
  if (master->workers) workers_free(master->workers);
  if (master->desk) desk_close(master->desk);
  text_free(&master->profile);
  if (master->watch) watch_free(master->watch);
  reload_close(&master->reload);
  if (master->counters) counters_free(master->counters);
  if (master->endpoints) endpoints_free(master->endpoints);
  timers_close(&master->loop.timers);
  ev_loop_destroy(master->loop.ev);
}

int master_run(const struct master_options *options) {
  struct master master = {.options = *options,
                          .log = {.level = LOG_NOTICE, .fd = STDERR_FILENO, .source = "master"},
                          .terminal = -1,
                          .lock_fd = -1};
  struct error error;
  master.loop = (struct loop){.ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV), .log = &master.log};
  clock_init(&master.loop.clock);
  timers_init(&master.loop.timers);
  master.started_us = master.loop.clock.real_us;
  title_set(options->title, "sluice: master");
  descriptors_raise();
  if (master_open(&master, &error) < 0) {
    dprintf(STDERR_FILENO, "sluice: %s\n", error.text);
    return 1;
  }
  reload_ask(&master.reload, "start");
  // The first check may have failed before it began.
  if (master.state != MASTER_DRAINING || master.workers) ev_run(master.loop.ev, 0);
  if (master.exit_code == 0) log_notice(&master.log, "ended");
  master_close(&master);
  return master.exit_code;
}
