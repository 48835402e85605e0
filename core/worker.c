// SPDX-License-Identifier: Apache-2.0
// The worker: loop, listeners, jobs, drain. Everything else hangs from its struct.
#include "worker.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "appender.h"
#include "balance.h"
#include "budget.h"
#include "channel.h"
#include "control.h"
#include "counters.h"
#include "dns.h"
#include "endpoint.h"
#include "exchange.h"
#include "exposition.h"
#include "kafka.h"
#include "kafka_batch.h"
#include "kit_remote.h"
#include "lease.h"
#include "link.h"
#include "passwords.h"
#include "phase.h"
#include "server.h"
#include "spool.h"
#include "store.h"
#include "store_objects.h"
#include "tcp_server.h"
#include "tls_cache.h"
#include "vm.h"

enum {
  CHUNKS_KEPT = 64,
  LARGE_BYTES = 128 * 1024, // what malloc gets from the system, and gives back
  ACCEPT_MOST = 32,
  JOBS_MOST = 100000,
  DRAIN_GRACE_US = 1000000,
  DRAIN_TICK_US = 20000,
  ACCEPT_PAUSE_US = 100000,
  PULSE_US = 1000000,
  MANUAL_START_US = 1000000000,
  KAFKA_FLUSH_MS = 5000,
  STORE_BYTES = 1 << 30,
  COUNTER_SLOTS = 1 << 14,
  RECENT_US = 1000000, // of the longest recent turn of the loop
  LATE_US = 20000,     // past their time, timers have waited for a worker that stood still
  COUNTER_TEXT = 1 << 20,
  ENDPOINT_SLOTS = 1 << 10,
  TOUCH_PULSES = 60,
  PROFILE_US = 3000000 // without a question a profile ends
};

extern const char bridge_declarations[]; // bridge.h, as text

struct loop *worker_loop(struct worker *worker) {
  return &worker->loop;
}

struct counters *worker_counters(struct worker *worker) {
  return worker->counters;
}

struct dns *worker_dns(struct worker *worker) {
  return worker->dns;
}

struct vm *worker_vm(struct worker *worker) {
  return worker->vm;
}

// Opened when first asked for: most gateways keep nothing.
struct store *worker_store(struct worker *worker) {
  if (worker->store || !worker->options.state_dir) return worker->store;
  char folder[4096];
  snprintf(folder, sizeof folder, "%s/store", worker->options.state_dir);
  worker->store = store_open(folder, STORE_BYTES, &worker->error);
  return worker->store;
}

struct objects *worker_objects(struct worker *worker) {
  if (worker->objects || !worker->options.state_dir) return worker->objects;
  char folder[4096];
  snprintf(folder, sizeof folder, "%s/responses", worker->options.state_dir);
  worker->objects = objects_open(folder, (uint64_t)worker_limits(worker)->cache_bytes, &worker->error);
  return worker->objects;
}

static void on_kafka_token(void *worker, const char *cluster) {
  phase_event(worker, EVENT_KAFKA_TOKEN, 0, slice_of(cluster));
}

struct kafka *worker_kafka(struct worker *worker) {
  const struct worker_options *options = &worker->options;
  if (worker->kafka) return worker->kafka;
  worker->kafka = kafka_new(&worker->loop);
  if (worker->kafka) kafka_on_token(worker->kafka, on_kafka_token, worker);
  for (uint32_t i = 0; worker->kafka && i < options->embedded_count; i++)
    kafka_embedded(worker->kafka, options->embedded[i].name, options->embedded[i].servers);
  return worker->kafka;
}

struct appender *worker_appender(struct worker *worker) {
  if (!worker->appender) worker->appender = appender_new(&worker->loop);
  return worker->appender;
}

// A coroutine waits for it, which may be gone by now: then nobody hears of it.
static void on_password(void *owner, double coroutine, bool fits) {
  phase_resume(owner, coroutine, fits ? BRIDGE_OK : BRIDGE_NONE, 0);
}

struct passwords *worker_passwords(struct worker *worker) {
  if (!worker->passwords) worker->passwords = passwords_new(&worker->loop, on_password, worker);
  return worker->passwords;
}

// xorshift128+: for ids, not for secrets.
uint64_t worker_random(struct worker *worker) {
  uint64_t a = worker->random[0], b = worker->random[1];
  worker->random[0] = b;
  a ^= a << 23;
  worker->random[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
  return worker->random[1] + b;
}

// ---- Jobs and graves -------------------------------------------------------------------------------------------------

void worker_later_call(struct worker *worker, void (*run)(struct worker *worker, void *data), void *data,
                       struct job *job) {
  queue_put(&worker->jobs, job, run, data);
}

void worker_write_later(struct worker *worker, void (*run)(struct worker *worker, void *data), void *data,
                        struct job *job) {
  queue_put(&worker->writes, job, run, data);
}

void worker_give_way(struct worker *worker, void (*run)(struct worker *worker, void *data), void *data,
                     struct job *job) {
  queue_put(&worker->yielded, job, run, data);
}

bool worker_has_work(const struct worker *worker) {
  return worker->jobs.first || worker->yielded.first || worker->writes.first;
}

struct later {
  struct job job;
  void (*run)(struct worker *worker, double number);
  double number, coroutine;
  int status;
};

static void later_run(struct worker *worker, void *data) {
  struct later later = *(struct later *)data;
  free(data);
  if (later.run)
    later.run(worker, later.number);
  else
    phase_resume(worker, later.coroutine, later.status, later.number);
}

static int later_queue(struct worker *worker, struct later later) {
  struct later *copy = malloc(sizeof *copy);
  if (!copy) return ERROR_MEMORY;
  *copy = later;
  worker_later_call(worker, later_run, copy, &copy->job);
  return 0;
}

int worker_later(struct worker *worker, void (*run)(struct worker *worker, double number), double number) {
  return later_queue(worker, (struct later){.run = run, .number = number});
}

// While the worker is taken apart nobody wakes any more: the sockets that Lua leaves behind would wake coroutines that
// have gone.
int worker_wake(struct worker *worker, double coroutine, int status, double number) {
  if (worker->closing) return 0;
  return later_queue(worker, (struct later){.coroutine = coroutine, .status = status, .number = number});
}

static void run(struct worker *worker, struct queue *queue, int most) {
  for (struct job *job; most > 0 && (job = queue_take(queue)); most--) job->run(worker, job->data);
}

// What was written comes before the jobs, which may take their time, and what they write comes with this turn too.
static void run_jobs(struct worker *worker) {
  run(worker, &worker->writes, JOBS_MOST);
  run(worker, &worker->jobs, JOBS_MOST);
  run(worker, &worker->writes, JOBS_MOST);
}

void worker_bury(struct worker *worker, struct grave *grave, void *memory) {
  grave->memory = memory;
  grave->next = worker->graves;
  worker->graves = grave;
}

static void free_graves(struct worker *worker) {
  while (worker->graves) {
    struct grave *grave = worker->graves;
    worker->graves = grave->next;
    free(grave->memory);
  }
}

// ---- The loop --------------------------------------------------------------------------------------------------------

static void arm_clock(struct worker *worker) {
  int64_t next = timers_next(&worker->loop.timers);
  if (worker->loop.clock.manual && next > worker->loop.clock.mono_us) next = INT64_MAX; // whoever moves it comes back
  if (next == worker->armed_us) return;
  worker->armed_us = next;
  ev_timer_stop(worker->loop.ev, &worker->clock_timer);
  if (next == INT64_MAX) return;
  double delay = (double)(next - worker->loop.clock.mono_us) / 1e6;
  ev_timer_set(&worker->clock_timer, delay > 0 ? delay : 0, 0);
  ev_timer_start(worker->loop.ev, &worker->clock_timer);
}

// How long the loop kept everybody waiting: from the events to here.
static void measure_turn(struct worker *worker) {
  struct clock now = {0};
  clock_update(&now);
  int64_t turn_us = now.mono_us - worker->loop.clock.mono_us;
  struct board *board = worker->board;
  if (worker->loop.clock.manual) return;
  if (turn_us > board->longest_turn_us) board->longest_turn_us = turn_us;
  if (now.mono_us - board->recent_since_us >= RECENT_US) {
    board->past_turn_us = board->recent_turn_us;
    board->recent_turn_us = 0;
    board->recent_since_us = now.mono_us;
  }
  if (turn_us > board->recent_turn_us) board->recent_turn_us = turn_us;
}

static void on_hurry(struct ev_loop *ev, ev_idle *watcher, int events) {
  (void)events;
  ev_idle_stop(ev, watcher);
}

static void on_before(struct ev_loop *ev, ev_prepare *watcher, int events) {
  (void)events;
  struct worker *worker = watcher->data;
  run_jobs(worker);
  free_graves(worker);
  if (worker_has_work(worker)) ev_idle_start(ev, &worker->hurry);
  measure_turn(worker);
  arm_clock(worker);
}

static void on_after(struct ev_loop *ev, ev_check *watcher, int events) {
  (void)ev;
  (void)events;
  struct worker *worker = watcher->data;
  clock_update(&worker->loop.clock);
  queue_move(&worker->jobs, &worker->yielded);
  __atomic_store_n(&worker->board->heartbeat_us, worker->loop.clock.mono_us, __ATOMIC_RELAXED);
}

// An idle worker turns all the same: a heart that stands still is what the watchdog looks for.
static void on_pulse(struct timer *timer) {
  struct worker *worker = (struct worker *)(void *)((char *)timer - offsetof(struct worker, pulse));
  timer_set(&worker->loop.timers, timer, worker->loop.clock.mono_us + PULSE_US);
  if (++worker->pulses % TOUCH_PULSES == 0) balance_touch(worker);
}

// Behind what sockets have in the same turn (its priority is the least): where this worker was busy or stopped for
// longer than somebody had time to answer, the answer may lie there. A signal wakes it without a look at them, so one that
// is late takes a turn more.
static void on_clock(struct ev_loop *ev, ev_timer *watcher, int events) {
  (void)ev;
  (void)events;
  struct worker *worker = watcher->data;
  int64_t due_us = worker->armed_us;
  worker->armed_us = 0;
  clock_update(&worker->loop.clock);
  bool late = worker->loop.clock.mono_us - due_us > LATE_US;
  worker->late = late && !worker->late && !worker->loop.clock.manual;
  if (worker->late) return; // it is armed anew
  timers_run(&worker->loop.timers, worker->loop.clock.mono_us);
}

void worker_turn(struct worker *worker, bool block) {
  if (worker->loop.clock.manual) timers_run(&worker->loop.timers, worker->loop.clock.mono_us);
  ev_run(worker->loop.ev, block ? EVRUN_ONCE : EVRUN_NOWAIT);
}

// ---- Accepting -------------------------------------------------------------------------------------------------------

static void listeners_watch(struct worker *worker, bool on) {
  for (uint32_t i = 0; i < worker->listener_count; i++) {
    if (on)
      ev_io_start(worker->loop.ev, &worker->listeners[i].watcher);
    else
      ev_io_stop(worker->loop.ev, &worker->listeners[i].watcher);
  }
}

// For good: who connects is refused, or another worker's, instead of waiting in a queue that nobody looks at. That of
// other workers stays, it goes with the worker.
static void listeners_shut(struct worker *worker) {
  listeners_watch(worker, false);
  for (uint32_t i = 0; i < worker->listener_count; i++) {
    struct listener *listener = &worker->listeners[i];
    if (listener != worker->peers && listener->fd >= 0) close(listener->fd);
    if (listener != worker->peers) listener->fd = -1;
  }
}

static void on_accept_timer(struct timer *timer) {
  struct worker *worker = (struct worker *)(void *)((char *)timer - offsetof(struct worker, accept_timer));
  if (!worker->draining) listeners_watch(worker, true);
}

// Too many connections, or no descriptors: what is queued waits in the kernel for a moment.
static void pause_accepting(struct worker *worker, const char *why) {
  listeners_watch(worker, false);
  timer_set(&worker->loop.timers, &worker->accept_timer, worker->loop.clock.mono_us + ACCEPT_PAUSE_US);
  if (worker->loop.clock.mono_us - worker->accept_logged_us < 10000000 && worker->accept_logged_us) return;
  worker->accept_logged_us = worker->loop.clock.mono_us;
  log_warn(&worker->log, "not accepting for a moment", "cause", why);
}

static bool is_full(const struct worker *worker) {
  int64_t most = worker->generation ? worker->generation->limits.max_connections : 0;
  return most > 0 && worker->server_count >= most;
}

// Accepts one connection. False: no more for now.
static bool accept_one(struct listener *listener) {
  struct worker *worker = listener->worker;
  struct sockaddr_storage address = {0};
  socklen_t len = sizeof address;
  if (is_full(worker)) {
    pause_accepting(worker, "max_connections is reached");
    return false;
  }
  int fd = accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
      pause_accepting(worker, strerror(errno));
    return errno == ECONNABORTED || errno == EINTR;
  }
  if (address.ss_family != AF_UNIX) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (worker->kit) kit_client_address(worker->kit, &address);
  if (listener->kind == LISTEN_STREAM)
    tcp_server_open(worker, listener, fd, (struct sockaddr *)&address);
  else
    server_open(worker, listener, fd, (struct sockaddr *)&address);
  return true;
}

static void on_accept(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev;
  (void)events;
  for (int i = 0; i < ACCEPT_MOST && accept_one(watcher->data); i++) {
  }
}

static bool has_word(const char *words, const char *word) {
  size_t len = strlen(word);
  for (const char *at = strstr(words, word); at; at = strstr(at + 1, word))
    if ((at == words || at[-1] == ' ') && (at[len] == 0 || at[len] == ' ')) return true;
  return false;
}

static void listener_init(struct listener *listener, struct worker *worker, const struct listen_socket *socket) {
  struct sockaddr_storage address = {0};
  socklen_t len = sizeof address;
  getsockname(socket->fd, (struct sockaddr *)&address, &len);
  *listener = (struct listener){
      .worker = worker,
      .fd = socket->fd,
      .kind = (uint8_t)socket->kind,
      .tls = has_word(socket->flags, "ssl"),
      .proxy_protocol = has_word(socket->flags, "proxy_protocol"),
      .http2 = has_word(socket->flags, "http2"),
      .port = address_port((struct sockaddr *)&address),
  };
  ev_io_init(&listener->watcher, on_accept, socket->fd, EV_READ);
  listener->watcher.data = listener;
}

void worker_listen_peers(struct worker *worker, int fd) {
  struct listen_socket socket = {.fd = fd, .kind = LISTEN_PEERS};
  worker->peers = &worker->listeners[worker->listener_count++];
  listener_init(worker->peers, worker, &socket);
  if (worker->listening && !worker->draining) ev_io_start(worker->loop.ev, &worker->peers->watcher);
}

static void start_listening(struct worker *worker) {
  if (worker->listening) return;
  worker->listening = true;
  if (!worker->draining) listeners_watch(worker, true);
}

// ---- Drain -----------------------------------------------------------------------------------------------------------

static void drain_step(struct worker *worker) {
  int64_t now = worker->loop.clock.mono_us;
  bool past_limit = now >= worker->drain_until_us;
  for (struct server *server = worker->servers, *next; server; server = next) {
    next = server->next;
    // A connection at rest may have a request on its way: it gets a moment, and an answer with Connection: close.
    if (past_limit || now >= worker->drain_from_us + DRAIN_GRACE_US) {
      if (past_limit)
        server_close(server);
      else
        server_retire(server);
    }
  }
  tcp_servers_drain(worker, past_limit);
  if (worker->server_count == 0 && ((worker->board->exchanges_open == 0 && worker->holds == 0) || past_limit)) {
    worker->stopped = true;
    ev_break(worker->loop.ev, EVBREAK_ALL);
    return;
  }
  timer_set(&worker->loop.timers, &worker->drain_timer, now + DRAIN_TICK_US);
}

static void on_drain_timer(struct timer *timer) {
  drain_step((struct worker *)(void *)((char *)timer - offsetof(struct worker, drain_timer)));
}

void worker_drain(struct worker *worker, int64_t limit_ms) {
  int64_t until_us = worker->loop.clock.mono_us + limit_ms * 1000;
  if (worker->draining) { // told again: it may be in more of a hurry now
    if (until_us < worker->drain_until_us) worker->drain_until_us = until_us;
    return;
  }
  // What the kernel has queued was promised an answer.
  for (uint32_t i = 0; i < worker->listener_count; i++)
    while (worker->listening && accept_one(&worker->listeners[i])) {
    }
  worker->draining = true;
  listeners_shut(worker);
  worker->drain_from_us = worker->loop.clock.mono_us;
  worker->drain_until_us = until_us;
  phase_event(worker, EVENT_STOP, 0, (struct slice){NULL, 0});
  exchange_end_tunnels(worker, NULL, limit_ms > 1 ? limit_ms : 1); // who is told goes to another worker
  timer_set(&worker->loop.timers, &worker->drain_timer, worker->drain_from_us + DRAIN_TICK_US);
}

// ---- Generations -----------------------------------------------------------------------------------------------------

static void generation_over(struct worker *worker, double id) {
  phase_event(worker, EVENT_GENERATION_END, id, (struct slice){NULL, 0});
}

// Called with the last reference; Lua hears of it when nothing of the generation is on the stack.
void worker_generation_end(struct worker *worker, struct generation *generation) {
  struct generation **at = &worker->generations;
  while (*at && *at != generation) at = &(*at)->next;
  if (*at) *at = generation->next;
  if (!worker->closing) worker_later(worker, generation_over, generation->id);
}

void worker_generation_live(struct worker *worker, struct generation *generation) {
  struct generation *before = worker->generation;
  worker->generation = generation_retain(generation);
  worker->board->generation = (uint32_t)generation->revision;
  worker->pool.most = generation->limits.pool_size;
  if (generation->limits.plugin_cpu_budget_ms >= 0)
    vm_set_budget(worker->vm, (double)generation->limits.plugin_cpu_budget_ms);
  if (before) generation_release(before);
  start_listening(worker);
}

// ---- Profiles --------------------------------------------------------------------------------------------------------

static void on_profile_timer(struct timer *timer) {
  struct worker *worker = (struct worker *)(void *)((char *)timer - offsetof(struct worker, profile_timer));
  vm_profile_end(worker->vm);
}

// Samples are taken as long as somebody asks for them: who asked may have gone.
static void profile_answer(struct worker *worker, const char *id) {
  struct text line = {0};
  text_printf(&line, "profile %s ", id);
  if (vm_profile(worker->vm, &line, &worker->error) < 0) {
    text_puts(&line, "{\"error\":");
    text_json(&line, worker->error.text);
    text_puts(&line, "}");
  }
  control_send(worker->control, line.data, (uint32_t)line.len);
  text_free(&line);
  timer_set(&worker->loop.timers, &worker->profile_timer, worker->loop.clock.mono_us + PROFILE_US);
}

// ---- The master's lines ----------------------------------------------------------------------------------------------

static void on_line(void *context, char *line, uint32_t len) {
  struct worker *worker = context;
  (void)len;
  char *rest = strchr(line, ' ');
  if (rest) *rest++ = 0;
  if (strcmp(line, "stage") == 0 && rest) {
    char *path = strchr(rest, ' ');
    worker->board->longest_turn_us = 0;
    if (path) phase_event(worker, EVENT_STAGE, strtod(rest, NULL), slice_of(path + 1));
  } else if (strcmp(line, "drain") == 0) {
    worker_drain(worker, rest ? strtoll(rest, NULL, 10) : 0);
  } else if (strcmp(line, "status") == 0 && rest) {
    phase_event(worker, EVENT_STATUS, strtod(rest, NULL), (struct slice){NULL, 0});
  } else if (strcmp(line, "profile") == 0 && rest) {
    profile_answer(worker, rest);
  } else if (strcmp(line, "reopen") != 0) {
    log_warn(&worker->log, "a line of the master that is not known", "line", line);
  }
}

static void on_master_gone(void *context) {
  struct worker *worker = context;
  control_close(worker->control);
  worker->control = NULL;
  worker->stopped = true;
  ev_break(worker->loop.ev, EVBREAK_ALL);
}

// ---- Life ------------------------------------------------------------------------------------------------------------

static void seed_random(struct worker *worker) {
  if (getrandom(worker->random, sizeof worker->random, 0) != sizeof worker->random || !worker->random[0])
    worker->random[0] = (uint64_t)worker->loop.clock.real_us | 1;
}

static int worker_open(struct worker *worker, struct error *error) {
  const struct worker_options *options = &worker->options;
  struct vm_options vm = {
      .home = options->home,
      .bridge_text = bridge_declarations,
      .cpu_budget_ms = 100,
      .log = &worker->log,
      .board = worker->board,
  };
  for (uint32_t i = 0; i < options->limit_count; i++)
    if (strcmp(options->limits[i].name, "plugin_cpu_budget_ms") == 0) vm.cpu_budget_ms = options->limits[i].value;
  worker->dns = dns_new(&worker->loop, &worker->dns_options, error);
  if (!worker->dns) return error->code;
  worker->vm = vm_new(worker, &vm, error);
  if (!worker->vm) return error->code;
  worker->listeners = calloc(options->socket_count + 1, sizeof *worker->listeners);
  if (!worker->listeners) return error_set(error, ERROR_MEMORY, "no memory for listeners");
  for (uint32_t i = 0; i < options->socket_count; i++)
    listener_init(&worker->listeners[worker->listener_count++], worker, &options->sockets[i]);
  return 0;
}

static void worker_init(struct worker *worker, const struct worker_options *options) {
  worker->options = *options;
  worker->log = options->log;
  worker->board = options->board ? options->board : &worker->own_board;
  worker->loop.log = &worker->log;
  worker->loop.ev = ev_loop_new(EVFLAG_AUTO);
  clock_init(&worker->loop.clock);
  worker->loop.clock.manual = options->manual_clock;
  // In each run the same: moments as fractions of seconds are rounded alike.
  if (options->manual_clock) worker->loop.clock.mono_us = MANUAL_START_US;
  timers_init(&worker->loop.timers);
  timer_init(&worker->drain_timer, on_drain_timer);
  timer_init(&worker->accept_timer, on_accept_timer);
  timer_init(&worker->pulse, on_pulse);
  timer_init(&worker->profile_timer, on_profile_timer);
  chunk_pool_init(&worker->chunks, CHUNKS_KEPT);
  limits_init(&worker->first_limits);
  pool_init(&worker->pool, worker->first_limits.pool_size);
  seed_random(worker);
  ev_init(&worker->clock_timer, on_clock);
  ev_set_priority(&worker->clock_timer, EV_MINPRI);
  ev_idle_init(&worker->hurry, on_hurry);
  ev_prepare_init(&worker->before, on_before);
  ev_check_init(&worker->after, on_after);
  ev_set_priority(&worker->after, EV_MAXPRI);
  worker->clock_timer.data = worker->before.data = worker->after.data = worker;
}

struct worker *worker_new(const struct worker_options *options, struct error *error) {
  struct worker *worker = calloc(1, sizeof *worker);
  if (!worker) {
    error_set(error, ERROR_MEMORY, "no memory for a worker");
    return NULL;
  }
  worker_init(worker, options);
  worker->counters = options->counters;
  worker->holder = options->holder;
  if (!worker->counters) worker->counters = worker->own_counters = counters_new(COUNTER_SLOTS, COUNTER_TEXT, error);
  if (worker->own_counters) worker->holder = counters_join(worker->own_counters);
  worker->endpoints = options->endpoints;
  if (!worker->endpoints && worker->counters)
    worker->endpoints = worker->own_endpoints = endpoints_new(ENDPOINT_SLOTS, error);
  if (!worker->loop.ev || !worker->endpoints || worker_open(worker, error) < 0) {
    worker_free(worker);
    return NULL;
  }
  endpoints_begin_worker(worker->endpoints, (uint32_t)options->id);
  ev_prepare_start(worker->loop.ev, &worker->before);
  ev_check_start(worker->loop.ev, &worker->after);
  phase_event(worker, EVENT_START, options->id, (struct slice){NULL, 0});
  return worker;
}

static void free_exchanges(struct worker *worker) {
  for (uint32_t i = 0; i < worker->slot_count; i++) {
    if (!worker->slots[i]) continue;
    lease_end_all(worker->slots[i]);
    arena_close(&worker->slots[i]->arena);
    free(worker->slots[i]);
  }
  free(worker->slots);
  free(worker->free_slots);
}

void worker_free(struct worker *worker) {
  while (worker->servers) server_close(worker->servers);
  while (worker->tcp_servers) tcp_server_close(worker->tcp_servers);
  link_close_idle(&worker->pool);
  h2_client_close_all(worker);
  queue_move(&worker->jobs, &worker->yielded);
  if (worker->loop.ev) run_jobs(worker);
  worker->closing = true;
  if (worker->generation) generation_release(worker->generation);
  if (worker->kafka) kafka_close(worker->kafka, KAFKA_FLUSH_MS);
  worker->kafka = NULL;
  if (worker->batches) kafka_batches_free(worker->batches);
  worker->batches = NULL;
  if (worker->passwords) passwords_free(worker->passwords);
  worker->passwords = NULL;
  if (worker->vm) vm_free(worker->vm);
  clients_close(worker);
  datagrams_close(worker);
  websockets_close(worker);
  channels_close(worker);
  waits_close(worker);
  budgets_close(worker);
  spools_close(worker);
  flights_close(worker);
  free(worker->last_report);
  free(worker->self_certificate);
  free(worker->self_key);
  if (worker->dns) dns_free(worker->dns);
  if (worker->store) store_close(worker->store);
  if (worker->objects) objects_close(worker->objects);
  if (worker->appender) appender_free(worker->appender);
  text_free(&worker->access_line);
  if (worker->control) control_close(worker->control);
  tls_cache_close(worker);
  run_jobs(worker);
  free_graves(worker);
  free_exchanges(worker);
  exposition_free(worker->exposition);
  if (worker->own_counters) counters_free(worker->own_counters);
  if (worker->own_endpoints) endpoints_free(worker->own_endpoints);
  h2_memory_close(&worker->h2_memory);
  for (uint32_t i = 0; i < worker->field_name_count; i++) free((char *)worker->field_names[i].text.data);
  free(worker->field_names);
  if (worker->peers) close(worker->peers->fd);
  free(worker->listeners);
  timers_close(&worker->loop.timers);
  chunk_pool_close(&worker->chunks);
  if (worker->loop.ev) ev_loop_destroy(worker->loop.ev);
  free(worker);
}

int worker_main(const struct worker_options *options) {
  struct error error = {0};
  // Told once, it does not grow: else, after the first of Kafka's large fetches was freed, the next would come from heaps
  // that keep their pages.
  mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
  struct worker *worker = worker_new(options, &error);
  if (!worker) {
    struct log log = options->log;
    log_crit(&log, "the worker cannot start", "cause", error.text);
    return 1;
  }
  on_pulse(&worker->pulse);
  struct kit *kit = kit_attach(worker);
  static const struct control_handler handler = {on_line, on_master_gone};
  worker->control = control_open(&worker->loop, options->control_fd, &handler, worker);
  if (options->snapshot) phase_event(worker, EVENT_STAGE, (double)options->revision, slice_of(options->snapshot));
  while (!worker->stopped) ev_run(worker->loop.ev, 0);
  int code = worker->exit_code;
  worker_free(worker);
  kit_detach(kit);
  return code;
}
