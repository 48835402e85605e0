// SPDX-License-Identifier: Apache-2.0
// A list that knows its ends, and jobs that know their neighbours: nothing here looks for anything.
#include "queue.h"

static void append(struct queue *queue, struct job *job) {
  job->previous = queue->last;
  job->next = NULL;
  job->queue = queue;
  *(queue->last ? &queue->last->next : &queue->first) = job;
  queue->last = job;
}

void queue_put(struct queue *queue, struct job *job, void (*run)(struct worker *worker, void *data), void *data) {
  if (job->queue) return;
  job->run = run;
  job->data = data;
  append(queue, job);
}

void queue_drop(struct job *job) {
  struct queue *queue = job->queue;
  if (!queue) return;
  *(job->previous ? &job->previous->next : &queue->first) = job->next;
  *(job->next ? &job->next->previous : &queue->last) = job->previous;
  job->queue = NULL;
}

struct job *queue_take(struct queue *queue) {
  struct job *job = queue->first;
  if (job) queue_drop(job);
  return job;
}

void queue_move(struct queue *to, struct queue *from) {
  for (struct job *job; (job = queue_take(from));) append(to, job);
}
