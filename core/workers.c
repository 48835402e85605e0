// SPDX-License-Identifier: Apache-2.0
// The master's worker processes.
#include "workers.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bridge.h"
#include "child.h"
#include "control.h"
#include "counters.h"
#include "embedded.h"
#include "text.h"
#include "title.h"

enum {
  QUICK_US = 1000000, // dying sooner after its start than this, a worker is restarted more slowly each time
  BACKOFF_FIRST_MS = 100,
  BACKOFF_MOST_MS = 5000,
  DRAIN_GRACE_MS = 1000, // a worker ends its drain by itself; the master kills only one that does not
  DEATHS_FAIL = 2,       // of one worker within one staging: the snapshot is to blame, not an accident
  TICK_MS = 250,
  WATCHDOG_MS = 5000, // where the configuration does not say: watchdog_timeout, drain_timeout
  DRAIN_MS = 30000,
};

enum worker_state {
  WORKER_STARTING, // forked, builds its first generation
  WORKER_LIVE,     // carries traffic
  WORKER_DRAINING, // takes nothing new; will exit
};

static const char *const state_names[] = {"starting", "live", "draining"};

struct process {
  struct process *next;
  struct workers *workers;
  int32_t id;
  uint32_t set;
  pid_t pid;
  enum worker_state state;
  struct control *control; // NULL once closed
  struct board *board;
  int64_t revision; // live with this; 0: none yet
  int64_t started_us;
  int64_t heartbeat; // as last seen, and since when it stands
  int64_t still_since_us;
  int64_t kill_at_us; // end of its drain; 0: none
  bool stuck;         // killed by the watchdog
  int64_t holder;     // of leases; they end when it has been reaped
};

// What is remembered of worker N over its restarts.
struct slot {
  uint32_t restarts;
  uint32_t quick;        // deaths soon after the start, in a row
  uint32_t stage_deaths; // within the present staging
  int64_t restart_at_us; // 0: not waiting
  char last_end[96];
};

struct workers {
  struct workers_options options;
  struct process *first;
  struct slot *slots; // by id - 1
  int32_t slot_count;
  struct workers_plan plan;    // of the current set
  struct workers_plan pending; // of the set being launched
  uint32_t set, pending_set;   // pending_set is 0 when none is being launched
  int64_t good, target;        // revisions; target is 0 when no staging is on
  char *good_snapshot, *target_snapshot;
  int64_t stage_deadline_us;
  int64_t last_tick_us;
  bool draining;
  ev_timer tick, restart;
};

static int64_t fresh_us(struct workers *workers) {
  clock_update(&workers->options.loop->clock);
  return workers->options.loop->clock.mono_us;
}

static struct log *log_of(struct workers *workers) {
  return workers->options.loop->log;
}

// The one place where a worker changes its state.
static void process_move(struct process *process, enum worker_state to) {
  static const bool legal[3][3] = {
      [WORKER_STARTING] = {[WORKER_LIVE] = true, [WORKER_DRAINING] = true},
      [WORKER_LIVE] = {[WORKER_LIVE] = true, [WORKER_DRAINING] = true},
      [WORKER_DRAINING] = {[WORKER_DRAINING] = true},
  };
  assert(legal[process->state][to]);
  process->state = to;
}

// ---- Starting ---------------------------------------------------------------------------------------------------

static void worker_become(const struct worker_options *options, struct title *title) {
  char name[32];
  snprintf(name, sizeof name, "sluice: worker %d", options->id);
  title_set(title, name);
  exit(worker_main(options));
}

static void options_fill(struct workers *workers, const struct process *process, const struct workers_plan *plan,
                         struct worker_options *out) {
  const struct settings *settings = plan->settings;
  bool pending = process->set == workers->pending_set || workers->good == 0;
  *out = (struct worker_options){
      .id = process->id,
      .worker_count = settings->workers,
      .board = process->board,
      .counters = workers->options.counters,
      .holder = process->holder,
      .endpoints = workers->options.endpoints,
      .tickets = workers->options.tickets,
      .limits = settings->limits,
      .limit_count = settings->limit_count,
      .embedded = workers->options.embedded->clusters,
      .embedded_count = workers->options.embedded->count,
      .home = workers->options.home,
      .state_dir = settings->state_dir,
      .log = {.level = (enum log_level)settings->log_level, .json = settings->log_json, .fd = log_of(workers)->fd},
      .log_path = workers->options.log_path,
      .revision = pending ? workers->target : workers->good,
      .snapshot = pending ? workers->target_snapshot : workers->good_snapshot,
  };
  snprintf(out->log.source, sizeof out->log.source, "worker %d", process->id);
}

static const struct control_handler worker_handler;

// Forks one. False with errno when it could not.
static bool process_fork(struct process *process, const struct workers_plan *plan) {
  struct workers *workers = process->workers;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return false;
  uint32_t most = plan->listeners->count;
  struct listen_socket *sockets = calloc(most + 1, sizeof *sockets);
  int *keep = calloc(most + 2, sizeof *keep);
  assert(sockets && keep);
  struct worker_options options;
  options_fill(workers, process, plan, &options);
  options.control_fd = ends[1];
  options.sockets = sockets;
  options.socket_count = listeners_of(plan->listeners, process->id, sockets);
  for (uint32_t i = 0; i < options.socket_count; i++) keep[i] = sockets[i].fd;
  keep[options.socket_count] = ends[1];
  keep[options.socket_count + 1] = log_of(workers)->fd;
  process->pid = child_fork(keep, options.socket_count + 2);
  if (process->pid == 0) worker_become(&options, workers->options.title);
  free(keep);
  free(sockets);
  close(ends[1]);
  if (process->pid > 0) process->control = control_open(workers->options.loop, ends[0], &worker_handler, process);
  if (process->control) return true;
  close(ends[0]);
  return false;
}

static void process_free(struct process *process) {
  if (process->control) control_close(process->control);
  munmap(process->board, sizeof *process->board);
  counters_leave(process->workers->options.counters, process->holder);
  free(process);
}

static bool process_start(struct workers *workers, int32_t id, uint32_t set, const struct workers_plan *plan) {
  struct process *process = calloc(1, sizeof *process);
  assert(process);
  int64_t now = fresh_us(workers);
  *process = (struct process){.workers = workers, .id = id, .set = set, .started_us = now, .still_since_us = now};
  process->board = mmap(NULL, sizeof *process->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert(process->board != MAP_FAILED);
  process->holder = counters_join(workers->options.counters);
  assert(process->holder);
  if (!process_fork(process, plan)) {
    log_error(log_of(workers), "cannot start a worker", "reason", strerror(errno));
    process_free(process);
    return false;
  }
  process->board->pid = process->pid;
  process->next = workers->first;
  workers->first = process;
  return true;
}

// ---- Stagings ---------------------------------------------------------------------------------------------------

static uint32_t set_in_question(const struct workers *workers) {
  return workers->pending_set ? workers->pending_set : workers->set;
}

static void snapshot_set(char **field, const char *path) {
  char *copy = path ? strdup(path) : NULL;
  free(*field);
  *field = copy;
}

static void drain_one(struct process *process, int64_t ms) {
  char line[48];
  process_move(process, WORKER_DRAINING);
  process->kill_at_us = fresh_us(process->workers) + (ms + DRAIN_GRACE_MS) * 1000;
  int len = snprintf(line, sizeof line, "drain %lld", (long long)ms);
  if (process->control) control_send(process->control, line, (uint32_t)len);
}

static int64_t drain_ms(const struct workers *workers) {
  return (int64_t)settings_limit(workers->plan.settings, "drain_timeout", DRAIN_MS);
}

static void stage_one(struct process *process, int64_t revision, const char *snapshot) {
  struct text line = {0};
  text_printf(&line, "stage %lld %s", (long long)revision, snapshot);
  if (process->control) control_send(process->control, line.data, (uint32_t)line.len);
  text_free(&line);
}

static void staging_succeeded(struct workers *workers) {
  if (workers->pending_set) {
    int64_t ms = workers->set ? drain_ms(workers) : 0;
    for (struct process *p = workers->first; p; p = p->next)
      if (p->set != workers->pending_set && p->state != WORKER_DRAINING) drain_one(p, ms);
    workers->plan = workers->pending;
    workers->set = workers->pending_set;
  }
  workers->good = workers->target;
  snapshot_set(&workers->good_snapshot, workers->target_snapshot);
}

// Whoever went ahead goes back: a configuration is live in all workers or in none.
static void staging_failed(struct workers *workers) {
  for (struct process *p = workers->first; p; p = p->next) {
    if (workers->pending_set && p->set == workers->pending_set) {
      process_move(p, WORKER_DRAINING);
      kill(p->pid, SIGKILL);
    } else if (p->set == workers->set && p->revision == workers->target) {
      stage_one(p, workers->good, workers->good_snapshot);
    }
  }
}

static void staging_settle(struct workers *workers, const char *failure) {
  int64_t revision = workers->target;
  if (failure)
    staging_failed(workers);
  else
    staging_succeeded(workers);
  workers->pending_set = 0;
  workers->target = 0;
  snapshot_set(&workers->target_snapshot, NULL);
  workers->options.on_settled(workers->options.context, revision, failure);
}

static void staging_fail(struct workers *workers, const char *message) {
  struct text json = {0};
  text_puts(&json, "{\"message\":");
  text_json(&json, message);
  text_puts(&json, "}");
  staging_settle(workers, json.data);
  text_free(&json);
}

static void staging_advance(struct workers *workers) {
  if (!workers->target) return;
  uint32_t set = set_in_question(workers);
  int32_t live = 0;
  for (struct process *p = workers->first; p; p = p->next)
    if (p->set == set && p->state == WORKER_LIVE && p->revision == workers->target) live++;
  const struct workers_plan *plan = workers->pending_set ? &workers->pending : &workers->plan;
  if (live == plan->settings->workers) staging_settle(workers, NULL);
}

static void staging_begin(struct workers *workers, int64_t revision, const char *snapshot) {
  assert(!workers->target);
  workers->target = revision;
  snapshot_set(&workers->target_snapshot, snapshot);
  workers->stage_deadline_us = fresh_us(workers) + workers->options.stage_ms * 1000;
  for (int32_t i = 0; i < workers->slot_count; i++) workers->slots[i].stage_deaths = 0;
}

static void slots_reserve(struct workers *workers, int32_t count) {
  if (count <= workers->slot_count) return;
  workers->slots = realloc(workers->slots, (size_t)count * sizeof *workers->slots);
  assert(workers->slots);
  memset(workers->slots + workers->slot_count, 0, (size_t)(count - workers->slot_count) * sizeof *workers->slots);
  workers->slot_count = count;
}

void workers_launch(struct workers *workers, const struct workers_plan *plan, int64_t revision, const char *snapshot) {
  slots_reserve(workers, plan->settings->workers);
  workers->pending = *plan;
  workers->pending_set = workers->set + 1;
  staging_begin(workers, revision, snapshot);
  for (int32_t id = 1; id <= plan->settings->workers; id++) {
    if (process_start(workers, id, workers->pending_set, plan)) continue;
    staging_fail(workers, "a worker could not be started");
    return;
  }
}

void workers_stage(struct workers *workers, int64_t revision, const char *snapshot) {
  staging_begin(workers, revision, snapshot);
  for (struct process *p = workers->first; p; p = p->next)
    if (p->state == WORKER_LIVE) stage_one(p, revision, snapshot);
}

void workers_replan(struct workers *workers, const struct workers_plan *plan) {
  workers->plan = *plan;
}

// ---- What workers say -------------------------------------------------------------------------------------------

static void process_live(struct process *process, int64_t revision) {
  struct workers *workers = process->workers;
  if (process->state == WORKER_DRAINING) return;
  process_move(process, WORKER_LIVE);
  process->revision = revision;
  // One that was restarted during a staging began with the last good revision and now follows the others; one that
  // went live after its staging had failed elsewhere goes back.
  bool staging = workers->target && process->set == set_in_question(workers);
  int64_t wanted = staging ? workers->target : workers->good;
  if (process->set == set_in_question(workers) && revision != wanted)
    stage_one(process, wanted, staging ? workers->target_snapshot : workers->good_snapshot);
  staging_advance(workers);
}

static void process_refused(struct process *process, int64_t revision, const char *json) {
  struct workers *workers = process->workers;
  if (workers->target && revision == workers->target) {
    staging_settle(workers, json);
    return;
  }
  if (revision != workers->good) return; // of a staging that another worker has ended
  char id[32];
  log_crit(log_of(workers), "worker cannot load what was good before", "worker", log_number(id, process->id), "failure",
           json);
  kill(process->pid, SIGKILL);
}

static void on_worker_line(void *context, char *line, uint32_t len) {
  (void)len;
  struct process *process = context;
  long long number;
  int used = 0;
  if (sscanf(line, "live %lld", &number) == 1)
    process_live(process, number);
  else if (sscanf(line, "failed %lld %n", &number, &used) == 1 && used)
    process_refused(process, number, line[used] ? line + used : "{}");
  else if (sscanf(line, "status %lld %n", &number, &used) == 1 && used)
    process->workers->options.on_status(process->workers->options.context, number, line + used);
  else if (sscanf(line, "profile %lld %n", &number, &used) == 1 && used)
    process->workers->options.on_profile(process->workers->options.context, number, line + used);
  else
    log_warn(log_of(process->workers), "a worker said what the master does not understand", "line", line);
}

static void on_worker_close(void *context) {
  struct process *process = context;
  control_close(process->control);
  process->control = NULL; // its end is told by SIGCHLD
}

static const struct control_handler worker_handler = {on_worker_line, on_worker_close};

// ---- Deaths and restarts ----------------------------------------------------------------------------------------

static void restart_due(struct workers *workers);

static void on_restart(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  restart_due(timer->data);
}

// Starts those whose time has come and sets the timer for the next one.
static void restart_due(struct workers *workers) {
  int64_t now = fresh_us(workers), next = INT64_MAX;
  ev_timer_stop(workers->options.loop->ev, &workers->restart);
  if (workers->draining) return;
  for (int32_t i = 0; i < workers->slot_count; i++) {
    struct slot *slot = &workers->slots[i];
    if (slot->restart_at_us == 0) continue;
    const struct workers_plan *plan = workers->set ? &workers->plan : &workers->pending;
    uint32_t set = workers->set ? workers->set : workers->pending_set;
    if (set == 0 || i >= plan->settings->workers) {
      slot->restart_at_us = 0;
    } else if (slot->restart_at_us <= now) {
      slot->restart_at_us = process_start(workers, i + 1, set, plan) ? 0 : now + BACKOFF_MOST_MS * 1000;
      if (slot->restart_at_us == 0) slot->restarts++;
    }
    if (slot->restart_at_us && slot->restart_at_us < next) next = slot->restart_at_us;
  }
  if (next == INT64_MAX) return;
  ev_timer_set(&workers->restart, next > now ? (double)(next - now) / 1e6 : 0, 0);
  ev_timer_start(workers->options.loop->ev, &workers->restart);
}

// The first death is made good at once; one that dies young again and again is given more and more time.
static int64_t restart_delay_ms(struct slot *slot, int64_t lived_us) {
  slot->quick = lived_us < QUICK_US ? slot->quick + 1 : 0;
  if (slot->quick <= 1) return 0;
  uint32_t doublings = slot->quick - 2 < 6 ? slot->quick - 2 : 6;
  int64_t ms = (int64_t)BACKOFF_FIRST_MS << doublings;
  return ms < BACKOFF_MOST_MS ? ms : BACKOFF_MOST_MS;
}

static const char *running_plugin(const struct process *process, char out[BOARD_NAME_BYTES]) {
  const struct board *board = process->board;
  uint32_t running = board->running;
  snprintf(out, BOARD_NAME_BYTES, "%.*s", BOARD_NAME_BYTES - 1,
           running && running < BOARD_PLUGINS ? board->plugin_names[running] : "");
  return out;
}

static void death_log(struct process *process, const char *end) {
  char id[32], pid[32], plugin[BOARD_NAME_BYTES];
  log_error(log_of(process->workers), process->stuck ? "worker was stuck and has been killed" : "worker died", "worker",
            log_number(id, process->id), "pid", log_number(pid, process->pid), "end", end, "plugin",
            running_plugin(process, plugin));
}

static void staging_fail_of_death(struct process *process, const char *end) {
  char plugin[BOARD_NAME_BYTES], message[384];
  running_plugin(process, plugin);
  snprintf(message, sizeof message, "worker %d %s while it loaded the configuration%s%s", process->id, end,
           *plugin ? ", in plugin " : "", plugin);
  staging_fail(process->workers, message);
}

static void process_died(struct process *process, int status) {
  struct workers *workers = process->workers;
  struct slot *slot = &workers->slots[process->id - 1];
  child_end(status, slot->last_end, sizeof slot->last_end);
  death_log(process, slot->last_end);
  int64_t now = fresh_us(workers);
  bool of_launch = workers->pending_set && process->set == workers->pending_set;
  // Before there is a set that carries traffic, or within it: the worker comes back. One of a set that is being
  // launched beside it does not, the launch has failed.
  if (of_launch && workers->set != 0) {
    staging_fail_of_death(process, slot->last_end);
    return;
  }
  slot->restart_at_us = now + restart_delay_ms(slot, now - process->started_us) * 1000;
  if (workers->target && ++slot->stage_deaths >= DEATHS_FAIL) staging_fail_of_death(process, slot->last_end);
  restart_due(workers);
}

static struct process *process_unlink(struct workers *workers, pid_t pid) {
  for (struct process **at = &workers->first; *at; at = &(*at)->next) {
    struct process *process = *at;
    if (process->pid != pid) continue;
    *at = process->next;
    return process;
  }
  return NULL;
}

bool workers_reap(struct workers *workers, pid_t pid, int status) {
  struct process *process = process_unlink(workers, pid);
  if (!process) return false;
  if (process->state != WORKER_DRAINING) process_died(process, status);
  process_free(process);
  if (workers->draining && !workers->first) workers->options.on_empty(workers->options.context);
  return true;
}

// ---- Watchdog ---------------------------------------------------------------------------------------------------

static int64_t watchdog_us(const struct workers *workers) {
  const struct workers_plan *plan = workers->set ? &workers->plan : &workers->pending;
  return plan->settings ? (int64_t)(settings_limit(plan->settings, "watchdog_timeout", WATCHDOG_MS) * 1000) : INT64_MAX;
}

// A worker whose heart stands still for longer than `limit_us` is killed.
static void heart_check(struct process *process, int64_t now, int64_t limit_us) {
  int64_t beat = __atomic_load_n(&process->board->heartbeat_us, __ATOMIC_RELAXED);
  if (beat != process->heartbeat) {
    process->heartbeat = beat;
    process->still_since_us = now;
  }
  if (now - process->still_since_us > limit_us) {
    process->stuck = true;
    kill(process->pid, SIGKILL);
  }
}

static void drain_end(struct process *process) {
  char id[32];
  log_warn(log_of(process->workers), "worker did not finish in time and has been killed", "worker",
           log_number(id, process->id));
  process->kill_at_us = 0;
  kill(process->pid, SIGKILL);
}

static void on_tick(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  struct workers *workers = timer->data;
  int64_t now = fresh_us(workers);
  // When the master itself did not get to run, the workers cannot be blamed for the same; and what they have said
  // meanwhile, or that they have ended, it may have yet to hear.
  bool late = now - workers->last_tick_us > 4 * TICK_MS * 1000;
  workers->last_tick_us = now;
  int64_t limit_us = watchdog_us(workers);
  for (struct process *p = workers->first; p; p = p->next) {
    if (late) p->still_since_us = now;
    heart_check(p, now, limit_us);
    if (!late && p->kill_at_us && now > p->kill_at_us) drain_end(p);
  }
  if (!late && workers->target && now > workers->stage_deadline_us)
    staging_fail(workers, "the workers did not finish loading in time");
}

// ---- Life -------------------------------------------------------------------------------------------------------

struct workers *workers_new(const struct workers_options *options) {
  struct workers *workers = calloc(1, sizeof *workers);
  assert(workers);
  workers->options = *options;
  workers->last_tick_us = fresh_us(workers);
  ev_timer_init(&workers->tick, on_tick, TICK_MS / 1000.0, TICK_MS / 1000.0);
  ev_set_priority(&workers->tick, EV_MINPRI); // behind what sockets and signals have in the same turn
  ev_timer_init(&workers->restart, on_restart, 0, 0);
  workers->tick.data = workers->restart.data = workers;
  ev_timer_start(options->loop->ev, &workers->tick);
  return workers;
}

void workers_free(struct workers *workers) {
  ev_timer_stop(workers->options.loop->ev, &workers->tick);
  ev_timer_stop(workers->options.loop->ev, &workers->restart);
  while (workers->first) {
    struct process *process = process_unlink(workers, workers->first->pid);
    kill(process->pid, SIGKILL);
    process_free(process);
  }
  free(workers->slots);
  free(workers->good_snapshot);
  free(workers->target_snapshot);
  free(workers);
}

void workers_drain(struct workers *workers, int64_t ms) {
  workers->draining = true;
  ev_timer_stop(workers->options.loop->ev, &workers->restart);
  for (struct process *p = workers->first; p; p = p->next) drain_one(p, ms);
  if (!workers->first) workers->options.on_empty(workers->options.context);
}

void workers_tell(struct workers *workers, const char *line) {
  for (struct process *p = workers->first; p; p = p->next)
    if (p->control) control_send(p->control, line, (uint32_t)strlen(line));
}

bool workers_ask(struct workers *workers, int64_t id) {
  char line[48];
  int len = snprintf(line, sizeof line, "status %lld", (long long)id);
  for (struct process *p = workers->first; p; p = p->next)
    if (p->state == WORKER_LIVE && p->control) return control_send(p->control, line, (uint32_t)len) == 0;
  return false;
}

uint32_t workers_profile(struct workers *workers, int64_t id) {
  char line[48];
  int len = snprintf(line, sizeof line, "profile %lld", (long long)id);
  uint32_t asked = 0;
  for (struct process *p = workers->first; p; p = p->next)
    if (p->state != WORKER_STARTING && p->control && control_send(p->control, line, (uint32_t)len) == 0) asked++;
  return asked;
}

uint32_t workers_count(const struct workers *workers) {
  uint32_t count = 0;
  for (struct process *p = workers->first; p; p = p->next) count++;
  return count;
}

// The longest turn of the loop in the last one to two seconds.
static int64_t recent_turn_us(const struct board *board) {
  return board->recent_turn_us > board->past_turn_us ? board->recent_turn_us : board->past_turn_us;
}

static void process_describe(const struct process *process, struct text *out) {
  const struct board *board = process->board;
  const struct slot *slot = &process->workers->slots[process->id - 1];
  char plugin[BOARD_NAME_BYTES];
  text_printf(out, "{\"id\":%d,\"pid\":%d,\"state\":\"%s\",\"generation\":%lld,\"uptime\":%.3f,\"restarts\":%u",
              process->id, (int)process->pid, state_names[process->state], (long long)process->revision,
              (double)(fresh_us(process->workers) - process->started_us) / 1e6, slot->restarts);
  text_printf(out,
              ",\"exchanges\":%llu,\"exchanges_open\":%lld,\"connections\":%llu,\"connections_open\":%lld,"
              "\"streams\":%llu,\"streams_open\":%lld",
              (unsigned long long)board->exchanges, (long long)board->exchanges_open,
              (unsigned long long)board->connections, (long long)board->connections_open,
              (unsigned long long)board->streams, (long long)board->streams_open);
  text_printf(out, ",\"longest_turn_us\":%lld,\"recent_turn_us\":%lld", (long long)board->longest_turn_us,
              (long long)recent_turn_us(board));
  text_puts(out, ",\"running\":");
  text_json(out, running_plugin(process, plugin));
  text_puts(out, ",\"last_end\":");
  text_json(out, *slot->last_end ? slot->last_end : NULL);
  text_puts(out, "}");
}

static void numbers_put(struct text *out, const char *name, const uint64_t *numbers, uint32_t count) {
  text_printf(out, ",\"%s\":[", name);
  for (uint32_t i = 0; i < count; i++) text_printf(out, i ? ",%llu" : "%llu", (unsigned long long)numbers[i]);
  text_puts(out, "]");
}

static void plugins_measure(const struct board *board, struct text *out) {
  uint32_t count = board->plugin_count < BOARD_PLUGINS ? board->plugin_count : BOARD_PLUGINS - 1;
  text_puts(out, ",\"plugins\":[");
  for (uint32_t i = 1; i <= count; i++) {
    char name[BOARD_NAME_BYTES];
    memcpy(name, board->plugin_names[i], sizeof name);
    name[sizeof name - 1] = 0;
    text_puts(out, i > 1 ? ",{\"name\":" : "{\"name\":");
    text_json(out, name);
    text_printf(out, ",\"calls\":%llu,\"errors\":%llu,\"stops\":%llu,\"cpu_us\":%llu}",
                (unsigned long long)board->plugin_calls[i], (unsigned long long)board->plugin_errors[i],
                (unsigned long long)board->plugin_stops[i], (unsigned long long)board->plugin_cpu_us[i]);
  }
  text_puts(out, "]");
}

static void process_measure(const struct process *process, struct text *out) {
  const struct board *board = process->board;
  text_printf(out, "{\"id\":%d,\"pid\":%d,\"state\":\"%s\",\"connections\":%llu,\"connections_open\":%lld", process->id,
              (int)process->pid, state_names[process->state], (unsigned long long)board->connections,
              (long long)board->connections_open);
  text_printf(out, ",\"requests\":%llu,\"requests_open\":%lld,\"longest_turn_us\":%lld",
              (unsigned long long)(board->exchanges - board->streams),
              (long long)(board->exchanges_open - board->streams_open), (long long)board->longest_turn_us);
  numbers_put(out, "statuses", board->statuses, BOARD_STATUSES);
  numbers_put(out, "latencies", board->latencies, BOARD_LATENCIES);
  plugins_measure(board, out);
  text_puts(out, "}");
}

// By id: the list itself is in order of starting, latest first.
static void put_each(const struct workers *workers, struct text *out,
                     void (*put)(const struct process *process, struct text *out)) {
  bool comma = false;
  text_puts(out, "[");
  for (int32_t id = 1; id <= workers->slot_count; id++)
    for (struct process *p = workers->first; p; p = p->next) {
      if (p->id != id) continue;
      if (comma) text_puts(out, ",");
      put(p, out);
      comma = true;
    }
  text_puts(out, "]");
}

void workers_describe(const struct workers *workers, struct text *out) {
  put_each(workers, out, process_describe);
}

void workers_measure(const struct workers *workers, struct text *out) {
  put_each(workers, out, process_measure);
}
