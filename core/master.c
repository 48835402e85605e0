// SPDX-License-Identifier: Apache-2.0
// The parent process.
//
// A reload goes through three hands, each of which may refuse it and leave everything as it was:
//
//   saved file, signal, command -> check (child process) -> listeners (when they changed) -> workers -> commit
//
// One runs at a time. What is asked for meanwhile is one more afterwards, however often it was asked.
#include "master.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "counters.h"
#include "desk.h"
#include "history.h"
#include "listen.h"
#include "settings.h"
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
  CHECK_MS = 60000,
  STAGE_MS = 60000,
  UPGRADE_MS = 120000,
  WATCHDOG_MS = 5000,
  DRAIN_MS = 30000,
  STATUS_WAIT_MS = 1000
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
  struct settings *settings;  // of the running generation; NULL before the first
  struct settings *candidate; // of the reload that runs
  struct listeners listeners, next_listeners;
  bool launching; // next_listeners belongs to the reload that runs
  struct check *check;
  bool staging;
  bool again; // one more reload afterwards
  char again_reason[REASON_BYTES];
  struct history history;
  struct workers *workers;
  struct watch *watch;
  struct desk *desk;
  struct upgrade *upgrade;
  bool handed_over; // a new master owns pid file and control socket
  int64_t status_id; // question to a worker that is out; 0: none
  int64_t last_status_id;
  char log_path[STATEDIR_PATH]; // "": stderr
  char desk_path[STATEDIR_PATH]; // until it is moved to its final place
  int signals;
  ev_io signalled;
  ev_timer rotate, status_wait;
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
  if (master->check) check_cancel(master->check);
  master->check = NULL;
  master_move(master, MASTER_DRAINING);
  listeners_close(&master->listeners, NULL);
  if (master->workers)
    workers_drain(master->workers, ms);
  else
    on_empty(master);
}

static void master_quit(struct master *master, const char *reason) {
  double ms = master->settings ? settings_limit(master->settings, "drain_timeout", DRAIN_MS) : DRAIN_MS;
  char text[32];
  log_notice(&master->log, "draining", "reason", reason, "limit_ms", log_number(text, (int64_t)ms));
  master_drain(master, (int64_t)ms);
}

static void master_stop(struct master *master, const char *reason) {
  log_notice(&master->log, "stopping", "reason", reason);
  master_drain(master, 0);
}

static void ready_tell(struct master *master, const char *line) {
  if (master->options.ready_fd < 0) return;
  dprintf(master->options.ready_fd, "%s\n", line);
  close(master->options.ready_fd);
  master->options.ready_fd = -1;
}

static void start_give_up(struct master *master, const char *reason) {
  struct text line = {0};
  text_printf(&line, "failed %s", reason);
  ready_tell(master, line.data);
  text_free(&line);
  master->exit_code = 1;
  master_drain(master, 0);
}

// The start has failed: says why where somebody reads it.
static void start_fail(struct master *master, const char *reason) {
  dprintf(STDERR_FILENO, "sluice: %s\n", reason);
  start_give_up(master, reason);
}

static void start_refused(struct master *master, const struct settings *settings) {
  struct text first = {0};
  error_sentence(settings->errors[0], &first);
  for (uint32_t i = 0; i < settings->error_count; i++) {
    struct text sentence = {0};
    error_sentence(settings->errors[i], &sentence);
    dprintf(STDERR_FILENO, "%s\n", sentence.data);
    text_free(&sentence);
  }
  start_give_up(master, first.data);
  text_free(&first);
}

// ---- Reloads ----------------------------------------------------------------------------------------------------

static void reload_begin(struct master *master, const char *reason);
static void on_checked(void *context, struct settings *settings);

static void watch_paths(struct master *master, const struct settings *also) {
  struct error error;
  const struct settings *now = master->settings;
  uint32_t count = (now ? now->watch_count : 0) + (also ? also->watch_count : 0);
  const char **paths = calloc(count + 1, sizeof *paths);
  assert(paths);
  count = 0;
  for (uint32_t i = 0; now && i < now->watch_count; i++) paths[count++] = now->watch[i];
  for (uint32_t i = 0; also && i < also->watch_count; i++) paths[count++] = also->watch[i];
  if (watch_set(master->watch, paths, count, &error) < 0)
    log_warn(&master->log, "some changes will not be seen", "reason", error.text);
  free(paths);
}

static void reload_end(struct master *master) {
  struct text answer = {0};
  outcome_describe(&master->history.last, &answer);
  if (master->desk) desk_answer(master->desk, DESK_RELOAD, answer.data);
  text_free(&answer);
  bool waits = master->desk && desk_waits(master->desk, DESK_RELOAD);
  if (master->state != MASTER_RUNNING || (!master->again && !waits)) return;
  reload_begin(master, master->again ? master->again_reason : "command");
}

static void reload_failed(struct master *master, const char *errors) {
  history_fail(&master->history, &master->loop.clock, errors);
  log_error(&master->log, "reload failed, the running generation stays", "reason", master->history.last.reason);
  settings_free(master->candidate);
  master->candidate = NULL;
  reload_end(master);
}

static void log_configure(struct master *master, const struct settings *settings) {
  bool changed = master->log.level != (enum log_level)settings->log_level || master->log.json != settings->log_json;
  static const char *const levels[] = {"debug", "info", "notice", "warn", "error", "crit"};
  char line[48];
  master->log.level = (enum log_level)settings->log_level;
  master->log.json = settings->log_json;
  if (!changed || !master->workers) return;
  snprintf(line, sizeof line, "log %s %s", levels[settings->log_level], settings->log_json ? "json" : "text");
  workers_tell(master->workers, line);
}

// The candidate is what runs now.
static void reload_commit(struct master *master) {
  struct settings *old = master->settings;
  bool changed = !old || old->revision != master->candidate->revision;
  master->settings = master->candidate;
  master->candidate = NULL;
  if (old && strcmp(old->state_dir, master->settings->state_dir) != 0)
    log_warn(&master->log, "a new state_dir needs a restart", "state_dir", master->settings->state_dir);
  struct workers_plan plan = {master->settings, &master->listeners};
  workers_replan(master->workers, &plan);
  log_configure(master, master->settings);
  watch_paths(master, NULL);
  // Only now: those of attempts that failed had to stay, for a revision is never used twice.
  statedir_forget_snapshots(master->settings->snapshot, master->settings->revision);
  settings_free(old);
  history_ok(&master->history, &master->loop.clock, master->settings->revision, changed);
}

static void reload_succeeded(struct master *master) {
  char revision[32], took[32];
  reload_commit(master);
  const struct outcome *last = &master->history.last;
  if (last->changed)
    log_notice(&master->log, "generation is live", "revision", log_number(revision, last->revision), "reason", last->reason,
               "took_ms", log_number(took, last->took_us / 1000));
  else
    log_info(&master->log, "nothing changed", "reason", last->reason);
  reload_end(master);
}

static void message_array(const char *message, struct text *out) {
  text_puts(out, "[{\"message\":");
  text_json(out, message);
  text_puts(out, "}]");
}

// Sockets or the number of workers changed: a new set of workers replaces the running one.
static void reload_launch(struct master *master) {
  struct error error;
  const struct settings *candidate = master->candidate;
  if (listeners_open(&master->next_listeners, &master->listeners, candidate->listens, candidate->listen_count,
                     candidate->workers, &error) < 0) {
    struct text errors = {0};
    message_array(error.text, &errors);
    log_error(&master->log, "cannot listen", "reason", error.text);
    reload_failed(master, errors.data);
    text_free(&errors);
    return;
  }
  struct workers_plan plan = {candidate, &master->next_listeners};
  master->staging = master->launching = true;
  workers_launch(master->workers, &plan, candidate->revision, candidate->snapshot);
}

static void reload_stage(struct master *master) {
  const struct settings *candidate = master->candidate;
  if (settings_differ(master->settings, candidate)) {
    reload_launch(master);
  } else if (candidate->revision == master->settings->revision) {
    reload_succeeded(master);
  } else {
    master->staging = true;
    workers_stage(master->workers, candidate->revision, candidate->snapshot);
  }
}

static void reload_refused(struct master *master, const struct settings *settings) {
  struct text errors = {0};
  for (uint32_t i = 0; i < settings->error_count; i++) error_log(&master->log, settings->errors[i]);
  watch_paths(master, settings);
  errors_array(settings, &errors);
  reload_failed(master, errors.data);
  text_free(&errors);
}

static void reload_begin(struct master *master, const char *reason) {
  struct check_options options = {.run = master->options.check,
                                  .run_context = master->options.check_context,
                                  .timeout_ms = environment_ms("SLUICE_CHECK_TIMEOUT_MS", CHECK_MS),
                                  .title = master->options.title,
                                  .on_done = on_checked,
                                  .context = master};
  history_begin(&master->history, &master->loop.clock, reason);
  master->again = false;
  if (master->desk) desk_begin(master->desk, DESK_RELOAD);
  master->check = check_start(&master->loop, &options);
  if (master->check) return;
  struct settings *failed = settings_new();
  settings_fail(failed, "cannot start the checker: %s", strerror(errno));
  on_checked(master, failed);
}

static void reload_ask(struct master *master, const char *reason) {
  if (master->state != MASTER_RUNNING) return;
  if (!master->check && !master->staging) {
    reload_begin(master, reason);
    return;
  }
  master->again = true;
  snprintf(master->again_reason, sizeof master->again_reason, "%s", reason);
}

static void on_changed(void *context, const char *path) {
  char reason[REASON_BYTES];
  snprintf(reason, sizeof reason, "changed %s", path);
  reload_ask(context, reason);
}

// ---- The start --------------------------------------------------------------------------------------------------

static const char *log_path(const struct master *master) {
  return *master->log_path ? master->log_path : NULL;
}

static void on_settled(void *context, int64_t revision, const char *failure);
static void on_status(void *context, int64_t id, const char *json);
static void on_command(void *context, enum desk_command command);

static int workers_make(struct master *master, struct error *error) {
  struct workers_options options = {.loop = &master->loop,
                                    .title = master->options.title,
                                    .home = master->options.home,
                                    .log_path = log_path(master),
                                    .tickets = master->tickets,
                                    .watchdog_ms = environment_ms("SLUICE_WATCHDOG_MS", WATCHDOG_MS),
                                    .stage_ms = STAGE_MS,
                                    .on_settled = on_settled,
                                    .on_status = on_status,
                                    .on_empty = on_empty,
                                    .context = master};
  options.counters = master->counters = counters_new(COUNTER_SLOTS, COUNTER_TEXT_BYTES, error);
  if (!master->counters) return error->code;
  master->workers = workers_new(&options);
  return 0;
}

static int state_take(struct master *master, const struct settings *settings, struct error *error) {
  master->lock_fd = master->inherited.lock_fd;
  if (master->lock_fd < 0) master->lock_fd = statedir_lock(settings->state_dir, error);
  if (master->lock_fd < 0) return master->lock_fd;
  if (!master->options.daemon) return 0;
  statedir_path(settings->state_dir, "sluice.log", master->log_path);
  return statedir_log_to(master->log_path, error);
}

// The control socket is made beside its place and moved there once this master is live, so that until then the one that
// it may replace stays reachable.
static int desk_make(struct master *master, const struct settings *settings, struct error *error) {
  char name[48];
  snprintf(name, sizeof name, "control.%d.sock", (int)getpid());
  statedir_path(settings->state_dir, name, master->desk_path);
  master->desk = desk_open(&master->loop, master->desk_path, on_command, master, error);
  return master->desk ? 0 : error->code;
}

// The first configuration is good: everything that is made once.
static int start_make(struct master *master, struct error *error) {
  const struct settings *settings = master->candidate;
  int failed = state_take(master, settings, error);
  if (!failed) failed = desk_make(master, settings, error);
  if (!failed)
    failed = listeners_open(&master->next_listeners, &master->inherited.listeners, settings->listens,
                            settings->listen_count, settings->workers, error);
  if (!failed) listeners_close(&master->inherited.listeners, &master->next_listeners);
  if (!failed) failed = workers_make(master, error);
  return failed;
}

static void start_launch(struct master *master) {
  struct error error;
  log_configure(master, master->candidate);
  if (start_make(master, &error) < 0) {
    start_fail(master, error.text);
    return;
  }
  struct workers_plan plan = {master->candidate, &master->next_listeners};
  master->staging = master->launching = true;
  workers_launch(master->workers, &plan, master->candidate->revision, master->candidate->snapshot);
}

static void log_listeners(struct master *master) {
  for (uint32_t i = 0; i < master->listeners.count; i++) {
    const struct listen_entry *entry = &master->listeners.all[i];
    if (entry->worker > 1) continue;
    log_notice(&master->log, "listening", "address", entry->socket.address, "for",
               entry->socket.kind == LISTEN_STATUS ? "status" : "proxy", "flags", entry->socket.flags);
  }
}

static void start_succeeded(struct master *master) {
  struct error error;
  char path[STATEDIR_PATH], pid[32];
  master_move(master, MASTER_RUNNING);
  log_listeners(master);
  reload_succeeded(master);
  const char *state_dir = master->settings->state_dir;
  if (statedir_write_pid(state_dir, (int32_t)getpid(), &error) < 0)
    log_error(&master->log, "no pid file", "reason", error.text);
  if (rename(master->desk_path, statedir_path(state_dir, "control.sock", path)) == 0) strcpy(master->desk_path, path);
  log_notice(&master->log, "running", "version", master->options.version, "pid", log_number(pid, getpid()), "state_dir",
             state_dir);
  ready_tell(master, "ready");
}

static void on_checked(void *context, struct settings *settings) {
  struct master *master = context;
  master->check = NULL;
  if (master->state == MASTER_DRAINING) {
    settings_free(settings);
    return;
  }
  bool starting = master->state == MASTER_STARTING;
  for (uint32_t i = 0; i < settings->warning_count; i++) warning_log(&master->log, settings->warnings[i]);
  if (settings->error_count == 0) {
    master->candidate = settings;
    if (starting)
      start_launch(master);
    else
      reload_stage(master);
    return;
  }
  if (starting)
    start_refused(master, settings);
  else
    reload_refused(master, settings);
  settings_free(settings);
}

// Whose sockets are the right ones now is clear: those of the other table go.
static void listeners_settle(struct master *master, bool ok) {
  if (!master->launching) return;
  struct listeners *keep = ok ? &master->next_listeners : &master->listeners;
  struct listeners *drop = ok ? &master->listeners : &master->next_listeners;
  listeners_close(drop, keep);
  master->listeners = *keep;
  master->next_listeners = (struct listeners){0};
  master->launching = false;
}

static void on_settled(void *context, int64_t revision, const char *failure) {
  (void)revision;
  struct master *master = context;
  if (master->state == MASTER_DRAINING) return;
  master->staging = false;
  listeners_settle(master, failure == NULL);
  if (master->state == MASTER_STARTING && !failure) {
    start_succeeded(master);
  } else if (!failure) {
    reload_succeeded(master);
  } else if (master->state == MASTER_STARTING) {
    struct text sentence = {0};
    error_sentence(failure, &sentence);
    start_fail(master, sentence.data);
    text_free(&sentence);
  } else {
    struct text errors = {0};
    error_log(&master->log, failure);
    text_printf(&errors, "[%s]", failure);
    reload_failed(master, errors.data);
    text_free(&errors);
  }
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
                               .settings = master->settings,
                               .history = &master->history,
                               .listeners = &master->listeners,
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

// ---- Upgrade ----------------------------------------------------------------------------------------------------

static void upgrade_answer(struct master *master, const char *failure) {
  struct text out = {0};
  text_printf(&out, "{\"ok\":%s,\"errors\":", failure ? "false" : "true");
  if (failure)
    message_array(failure, &out);
  else
    text_puts(&out, "[]");
  text_puts(&out, "}");
  desk_answer(master->desk, DESK_UPGRADE, out.data);
  text_free(&out);
}

static void on_upgraded(void *context, const char *failure) {
  struct master *master = context;
  master->upgrade = NULL;
  upgrade_answer(master, failure);
  if (failure) {
    log_error(&master->log, "upgrade failed, this process goes on", "reason", failure);
    return;
  }
  master->handed_over = true;
  if (master->state == MASTER_RUNNING) master_quit(master, "a new process has taken over");
}

static void upgrade_begin(struct master *master) {
  struct error error;
  struct upgrade_options options = {.program = master->options.program,
                                    .argv = master->options.argv,
                                    .timeout_ms = UPGRADE_MS,
                                    .on_done = on_upgraded,
                                    .context = master};
  struct inheritance given = {
      .listeners = master->listeners, .tickets_fd = master->tickets_fd, .lock_fd = master->lock_fd, .ready_fd = -1};
  if (master->upgrade || master->state != MASTER_RUNNING) return;
  desk_begin(master->desk, DESK_UPGRADE);
  log_notice(&master->log, "upgrading", "program", master->options.program);
  master->upgrade = upgrade_start(&master->loop, &options, &given, &error);
  if (!master->upgrade) on_upgraded(master, error.text);
}

// ---- Commands and signals ---------------------------------------------------------------------------------------

static void end_answer(struct master *master, enum desk_command command) {
  char line[48];
  snprintf(line, sizeof line, "{\"ok\":true,\"pid\":%d}", (int)getpid());
  desk_begin(master->desk, command);
  desk_answer(master->desk, command, line);
}

static void on_command(void *context, enum desk_command command) {
  struct master *master = context;
  switch (command) {
  case DESK_STATUS: status_ask(master); break;
  case DESK_RELOAD: reload_ask(master, "command"); break;
  case DESK_UPGRADE: upgrade_begin(master); break;
  case DESK_QUIT:
    end_answer(master, command);
    if (master->state != MASTER_DRAINING) master_quit(master, "command");
    break;
  case DESK_STOP:
    end_answer(master, command);
    master_stop(master, "command");
    break;
  case DESK_COUNT: break;
  }
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
    if (master->check && pid == check_pid(master->check))
      check_exited(master->check, status);
    else if (master->upgrade && pid == upgrade_pid(master->upgrade))
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
  case SIGHUP: reload_ask(master, "signal"); break;
  case SIGUSR1: log_reopen(master); break;
  case SIGUSR2: upgrade_begin(master); break;
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
  struct ev_loop *ev = master->loop.ev;
  ev_io_init(&master->signalled, on_signalled, master->signals, EV_READ);
  ev_timer_init(&master->rotate, on_rotate, TICKET_ROTATE_S, TICKET_ROTATE_S);
  ev_timer_init(&master->status_wait, on_status_wait, 0, 0);
  master->signalled.data = master->rotate.data = master->status_wait.data = master;
  ev_io_start(ev, &master->signalled);
  ev_timer_start(ev, &master->rotate);
  return 0;
}

// What others would find although nothing runs any more, unless a new master has put its own there.
static void files_remove(struct master *master) {
  char path[STATEDIR_PATH];
  if (master->desk && !master->handed_over) unlink(master->desk_path);
  if (master->handed_over || !master->settings) return;
  unlink(statedir_path(master->settings->state_dir, "sluice.pid", path));
}

static void master_close(struct master *master) {
  files_remove(master);
  if (master->upgrade) upgrade_cancel(master->upgrade);
  if (master->workers) workers_free(master->workers);
  if (master->desk) desk_close(master->desk);
  if (master->watch) watch_free(master->watch);
  listeners_close(&master->listeners, NULL);
  settings_free(master->candidate);
  settings_free(master->settings);
  history_close(&master->history);
  if (master->counters) counters_free(master->counters);
  timers_close(&master->loop.timers);
  ev_loop_destroy(master->loop.ev);
}

int master_run(const struct master_options *options) {
  struct master master = {.options = *options, .log = {.level = LOG_NOTICE, .fd = STDERR_FILENO, .source = "master"}};
  struct error error;
  master.loop = (struct loop){.ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV), .log = &master.log};
  clock_init(&master.loop.clock);
  timers_init(&master.loop.timers);
  master.started_us = master.loop.clock.real_us;
  title_set(options->title, "sluice: master");
  descriptors_raise();
  if (master_open(&master, &error) < 0)
    start_fail(&master, error.text);
  else
    reload_begin(&master, "start");
  if (master.state != MASTER_DRAINING || master.workers) ev_run(master.loop.ev, 0);
  log_notice(&master.log, "ended");
  master_close(&master);
  return master.exit_code;
}
