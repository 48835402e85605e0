// SPDX-License-Identifier: Apache-2.0
// A worker: one event loop, one VM, everything that carries traffic hangs from here.
#pragma once
#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "buffer.h"
#include "conn.h"
#include "dns.h"
#include "error.h"
#include "generation.h"
#include "h2_client.h"
#include "h2_guard.h"
#include "h2_memory.h"
#include "loop.h"
#include "pool.h"
#include "process.h"
#include "text.h"

struct appender;
struct budget;
struct channels;
struct call;
struct control;
struct counters;
struct exposition;
struct endpoints;
struct dns;
struct exchange;
struct flights;
struct kafka;
struct kafka_batches;
struct link;
struct passwords;
struct server;
struct tcp_server;
struct kit;
struct objects;
struct store;
struct topics;
struct client;
struct vm;
struct wait;
struct websockets;

enum { WAIT_BUCKETS = 256, DATAGRAM_FAMILIES = 3 };

struct listener {
  struct worker *worker;
  ev_io watcher;
  int fd;
  uint8_t kind; // enum listen_kind
  bool tls, http2, proxy_protocol;
  uint16_t port;
};

struct tls_entry { // of tls_cache.c
  struct tls_entry *next;
  uint64_t key;
  struct tls_context *context;
};

struct worker {
  struct loop loop; // first: a worker is a loop with things on it
  struct log log;
  struct worker_options options;
  struct board *board;
  struct board own_board; // where there is no master
  struct chunk_pool chunks;
  struct listener *listeners; // room for one more than the master gave: that for other workers
  uint32_t listener_count;
  struct listener *peers; // among them; NULL: not opened
  struct server *servers; // all downstream connections, but for those of streams
  struct tcp_server *tcp_servers;
  uint32_t server_count;
  struct exchange **slots;
  uint32_t slot_count;
  uint32_t *free_slots;
  uint32_t free_slot_count;
  struct exchange *spare; // ended exchanges, ready for use
  uint32_t spare_count;
  struct generation *generation; // the running one; NULL until the first is live
  struct generation *generations;
  int next_generation;
  struct pool pool;
  struct h2_pool h2;
  struct h2_memory h2_memory;    // of sessions on both sides
  struct tls_entry *tls_entries; // last used first
  uint32_t tls_entry_count;
  struct client **clients; // sockets of Lua, by slot
  uint32_t client_count;
  uint32_t client_serial;
  int datagrams[DATAGRAM_FAMILIES]; // of bridge_datagram.c, each opened when first used; 0: not yet
  struct wait *waits[WAIT_BUCKETS]; // coroutines that sleep or wait to be woken; timers of Lua
  struct dns *dns;
  struct dns_options dns_options;
  struct counters *counters, *own_counters;
  int64_t holder;                // of leases there
  struct exposition *exposition; // of the counters that are metrics; NULL until somebody asks
  struct endpoints *endpoints, *own_endpoints;
  uint32_t pulses;
  struct store *store;
  struct budget **budgets; // by their numbers from 1
  uint32_t budget_count;
  struct spool **spools; // by their numbers from 1, NULL: that one is closed
  uint32_t spool_count;
  struct objects *objects;  // cached responses
  int64_t uncached_said_us; // when the log was last told that some could not be
  uint64_t uncached;        // since then
  struct call *calls;       // of exchange_call.c
  uint32_t call_count;
  double last_call;
  struct flights *flights; // requests that others wait for; NULL until there is one
  struct appender *appender;
  struct passwords *passwords; // being checked; NULL until there is one
  struct text access_line;     // of the access log, being made
  int64_t access_time_key;     // whose text `access_time` is, see access_log.c
  uint32_t access_time_len;
  char access_time[32];
  struct kafka *kafka;
  struct kafka_batches *batches; // of records; NULL until there is one
  struct vm *vm;
  struct control *control;
  struct error error;             // bridge_error
  struct field_name *field_names; // by number from 1, see bridge_field_name
  uint32_t field_name_count;
  char *last_report; // where there is no master
  struct grave *graves;
  // The spec kit's network: takes the place of connect(2). 0, or negative. NULL: the kernel's.
  int (*connect)(struct worker *worker, struct conn *conn, const struct address *address);
  struct kit *kit;               // and whose it is
  struct websockets *websockets; // what they share; NULL until there is one
  struct channels *channels;     // NULL until there is one
  struct topics *topics;         // its Kafka; NULL: librdkafka's
  struct queue writes;           // what is to be written before the loop waits
  struct queue jobs;             // what is to run before the loop waits
  struct queue yielded;          // what is to run in the next turn, when others have had theirs
  struct limits first_limits;    // until the first generation is live
  uint64_t random[2];            // state of the quick generator, for ids
  bool seeded;                   // by a spec: ids and random bytes repeat
  bool listening, draining, stopped, closing;
  uint32_t holds; // what a drain waits for besides exchanges: bridge_hold
  int64_t drain_from_us, drain_until_us, accept_logged_us;
  struct h2_bucket offence_lines; // of h2_server.c: what the log may still tell, and how many it did not
  uint32_t offences_untold;
  int exit_code;
  ev_timer clock_timer;
  ev_idle hurry; // while there is work that waits for nothing, the loop does not wait either
  ev_prepare before;
  ev_check after;
  int64_t armed_us;
  bool late; // its timers have been put off by a turn
  struct timer drain_timer, accept_timer, pulse, profile_timer;
  char *self_certificate, *self_key; // for listeners without a certificate; made when first needed
};

// Those of the running generation.
static inline const struct limits *worker_limits(const struct worker *worker) {
  return worker->generation ? &worker->generation->limits : &worker->first_limits;
}

// Takes connections of other workers from this socket, which it then owns.
void worker_listen_peers(struct worker *worker, int fd);
// A worker without master or sockets, for the spec kit; worker_main uses it too.
struct worker *worker_new(const struct worker_options *options, struct error *error);
void worker_free(struct worker *worker);
// One turn of the loop; waits when `block`.
void worker_turn(struct worker *worker, bool block);
void worker_drain(struct worker *worker, int64_t limit_ms);
// Frees memory when no callback of this turn can still hold it.
void worker_bury(struct worker *worker, struct grave *grave, void *memory);
// Runs `run` with the number before the loop waits next: for what may not happen inside a call from Lua.
int worker_later(struct worker *worker, void (*run)(struct worker *worker, double number), double number);
// The same without an allocation, for what embeds its job; `data` must stay, or be buried, until it has run.
void worker_later_call(struct worker *worker, void (*run)(struct worker *worker, void *data), void *data,
                       struct job *job);
// The same for writing what has gathered: before the jobs of this turn, and again behind them.
void worker_write_later(struct worker *worker, void (*run)(struct worker *worker, void *data), void *data,
                        struct job *job);
// The same in the next turn of the loop, which then does not wait: for who has done enough in this one.
void worker_give_way(struct worker *worker, void (*run)(struct worker *worker, void *data), void *data,
                     struct job *job);
// Whether any of that is still to be done. queue_drop takes a job back.
bool worker_has_work(const struct worker *worker);
// Resumes a coroutine before the loop waits next. Safe inside a call from Lua.
int worker_wake(struct worker *worker, double coroutine, int status, double number);
void worker_generation_end(struct worker *worker, struct generation *generation);
// Of bridge_gen.c: the context that the generation greets with, made when a certificate or a listener first needs it.
// BRIDGE_OK or BRIDGE_FAILED.
int worker_open_tls(struct worker *worker, struct generation *generation);
// Exchanges from now on run in this generation.
void worker_generation_live(struct worker *worker, struct generation *generation);
uint64_t worker_random(struct worker *worker);

// Of bridge_socket.c and bridge_wait.c: what Lua left open.
void clients_close(struct worker *worker);
void datagrams_close(struct worker *worker); // of bridge_datagram.c
void waits_close(struct worker *worker);
void websockets_close(struct worker *worker); // of exchange_websocket.c

struct loop *worker_loop(struct worker *worker);
struct counters *worker_counters(struct worker *worker);
struct store *worker_store(struct worker *worker);     // NULL, with worker->error, when it cannot be opened
struct objects *worker_objects(struct worker *worker); // the same for cached responses
struct dns *worker_dns(struct worker *worker);
struct kafka *worker_kafka(struct worker *worker);
struct appender *worker_appender(struct worker *worker);
struct passwords *worker_passwords(struct worker *worker); // NULL: no memory
