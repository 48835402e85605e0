// SPDX-License-Identifier: Apache-2.0
// The master's worker processes: forks them, hands them snapshots, restarts the dead, kills the stuck, drains the old.
//
// A staging is one attempt to bring all workers to a revision, and ends with exactly one on_settled. It either tells the
// running workers to load the revision (workers_stage) or, when sockets or the number of workers change, starts a new set
// of workers beside the running one, which then drains (workers_launch). A staging that fails leaves every worker at the
// revision it had.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "listen.h"
#include "loop.h"
#include "settings.h"

struct counters;
struct endpoints;
struct embedded;
struct text;
struct title;
struct workers;

// What a set of workers is made from. Owned by the master, and kept by it until the set has been replaced.
struct workers_plan {
  const struct settings *settings;
  const struct listeners *listeners;
};

struct workers_options {
  struct loop *loop;
  struct title *title;
  const char *home;
  const char *log_path; // NULL: stderr
  struct counters *counters;
  struct endpoints *endpoints;
  const struct ticket_keys *tickets;
  const struct embedded *embedded; // Kafka clusters, as they are when a worker is forked
  int64_t stage_ms;                // a staging that takes longer has failed
  // `failure` is a JSON object that says why, or NULL: all workers are live with the revision.
  void (*on_settled)(void *context, int64_t revision, const char *failure);
  void (*on_status)(void *context, int64_t id, const char *json);  // answer to workers_ask
  void (*on_profile)(void *context, int64_t id, const char *json); // one answer to workers_profile
  void (*on_empty)(void *context);                                 // the last worker has gone, after workers_drain
  void *context;
};

struct workers *workers_new(const struct workers_options *options);
// Kills what still runs.
void workers_free(struct workers *workers);

// Begin a staging; there must be none. In a launch the plan becomes the current one when it succeeds.
void workers_launch(struct workers *workers, const struct workers_plan *plan, int64_t revision, const char *snapshot);
void workers_stage(struct workers *workers, int64_t revision, const char *snapshot);
// From now on restarted workers are made from this plan, which differs from the current one in neither sockets nor number.
void workers_replan(struct workers *workers, const struct workers_plan *plan);

// No restarts any more; every worker finishes what is in flight within that time or is killed.
void workers_drain(struct workers *workers, int64_t ms);

// Sends a line to all workers.
void workers_tell(struct workers *workers, const char *line);
// Asks one live worker for its status; false when there is none.
bool workers_ask(struct workers *workers, int64_t id);

// Asks all workers that carry traffic or drain what their samples say; gives how many were asked.
uint32_t workers_profile(struct workers *workers, int64_t id);

// The master reaped a child: true when it was a worker.
bool workers_reap(struct workers *workers, pid_t pid, int status);

uint32_t workers_count(const struct workers *workers);
// A JSON array: id, pid, state, generation, counts, restarts, last end.
void workers_describe(const struct workers *workers, struct text *out);
// The same with what `sluice top` needs: id, pid, counts, statuses, latencies, plugins.
void workers_measure(const struct workers *workers, struct text *out);
