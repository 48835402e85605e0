// SPDX-License-Identifier: Apache-2.0
// Jobs in the order in which they came: put off until the loop has time for them, run one by one, or taken back.
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct queue;
struct worker;

// Embedded in what it concerns, in one queue at most, once.
struct job {
  struct job *previous, *next;
  struct queue *queue; // NULL: in none
  void (*run)(struct worker *worker, void *data);
  void *data;
};

struct queue {
  struct job *first, *last;
};

// Nothing happens to a job that is in a queue already.
void queue_put(struct queue *queue, struct job *job, void (*run)(struct worker *worker, void *data), void *data);
// The first, no longer in the queue; NULL: there is none.
struct job *queue_take(struct queue *queue);
// Takes it out of the queue that it is in, if any.
void queue_drop(struct job *job);
// All of `from` go behind those of `to`.
void queue_move(struct queue *to, struct queue *from);

static inline bool job_is_queued(const struct job *job) {
  return job->queue != NULL;
}
