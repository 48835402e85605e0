// SPDX-License-Identifier: Apache-2.0
// Blocking calls on helper threads. A thread takes errands until the line is empty and ends: an idle worker has none.
#include "errands.h"

#include <assert.h>
#include <ev.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { THREAD_STACK_BYTES = 256 * 1024, THREADS_MAX = 16 };

enum thread_state { THREAD_FREE, THREAD_RUNNING, THREAD_ENDED };

struct helper {
  struct errands *errands;
  pthread_t thread;
  enum thread_state state; // under the mutex
};

struct errands {
  struct loop *loop;
  struct ev_io wake;
  int wake_fd;
  uint32_t pending; // loop thread only
  uint32_t helper_count;
  struct helper helpers[THREADS_MAX];
  pthread_mutex_t mutex; // guards the two lists and the helpers' states
  struct errand *line, **line_end;
  struct errand *done;
};

static struct errand *errands_take(struct errands *errands) {
  struct errand *errand = errands->line;
  if (!errand) return NULL;
  errands->line = errand->next;
  if (!errands->line) errands->line_end = &errands->line;
  return errand;
}

static void errands_wake(struct errands *errands) {
  uint64_t one = 1;
  while (write(errands->wake_fd, &one, sizeof one) < 0) {
    // Only EINTR can be: the counter of an eventfd does not fill up by ones.
  }
}

static void *helper_main(void *argument) {
  struct helper *helper = argument;
  struct errands *errands = helper->errands;
  pthread_mutex_lock(&errands->mutex);
  for (struct errand *errand; (errand = errands_take(errands));) {
    pthread_mutex_unlock(&errands->mutex);
    errand->run(errand);
    pthread_mutex_lock(&errands->mutex);
    errand->next = errands->done;
    errands->done = errand;
    errands_wake(errands);
  }
  helper->state = THREAD_ENDED;
  pthread_mutex_unlock(&errands->mutex);
  return NULL;
}

static int helper_start(struct helper *helper) {
  pthread_attr_t attributes;
  sigset_t all, before;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
  // Signals belong to the loop's thread: the CPU budget's timer must never stop a helper.
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&helper->thread, &attributes, helper_main, helper);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (!failed) helper->state = THREAD_RUNNING;
  return failed;
}

// With the mutex held. True when some thread will come to the line.
static bool helpers_call(struct errands *errands) {
  bool running = false;
  for (uint32_t i = 0; i < errands->helper_count; i++) {
    struct helper *helper = &errands->helpers[i];
    if (helper->state == THREAD_ENDED) {
      pthread_join(helper->thread, NULL); // it only returns now, and needs no mutex for that
      helper->state = THREAD_FREE;
    }
    if (helper->state == THREAD_RUNNING)
      running = true;
    else if (helper_start(helper) == 0)
      return true;
  }
  return running;
}

static void errands_finish(struct errands *errands) {
  pthread_mutex_lock(&errands->mutex);
  struct errand *done = errands->done;
  errands->done = NULL;
  pthread_mutex_unlock(&errands->mutex);
  while (done) {
    struct errand *errand = done;
    done = errand->next;
    assert(errands->pending > 0);
    errands->pending--;
    errand->on_done(errand);
  }
}

static void on_wake(struct ev_loop *ev, struct ev_io *io, int events) {
  struct errands *errands = io->data;
  uint64_t count;
  (void)ev;
  (void)events;
  if (read(errands->wake_fd, &count, sizeof count) > 0) errands_finish(errands);
}

struct errands *errands_new(struct loop *loop, uint32_t threads) {
  struct errands *errands = calloc(1, sizeof *errands);
  if (!errands) return NULL;
  errands->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (errands->wake_fd < 0) {
    free(errands);
    return NULL;
  }
  errands->loop = loop;
  errands->line_end = &errands->line;
  errands->helper_count = threads < THREADS_MAX ? threads : THREADS_MAX;
  for (uint32_t i = 0; i < errands->helper_count; i++) errands->helpers[i].errands = errands;
  pthread_mutex_init(&errands->mutex, NULL);
  ev_io_init(&errands->wake, on_wake, errands->wake_fd, EV_READ);
  errands->wake.data = errands;
  ev_io_start(loop->ev, &errands->wake);
  return errands;
}

void errands_submit(struct errands *errands, struct errand *errand) {
  errand->next = NULL;
  errands->pending++;
  pthread_mutex_lock(&errands->mutex);
  *errands->line_end = errand;
  errands->line_end = &errand->next;
  bool called = helpers_call(errands);
  if (!called) errands_take(errands); // it is alone in the line: with nobody running, earlier ones have gone this way
  pthread_mutex_unlock(&errands->mutex);
  if (called) return;
  errand->run(errand);
  pthread_mutex_lock(&errands->mutex);
  errand->next = errands->done;
  errands->done = errand;
  errands_wake(errands);
  pthread_mutex_unlock(&errands->mutex);
}

uint32_t errands_pending(const struct errands *errands) {
  return errands->pending;
}

static void helper_join(struct helper *helper) {
  pthread_mutex_lock(&helper->errands->mutex);
  bool started = helper->state != THREAD_FREE;
  pthread_mutex_unlock(&helper->errands->mutex);
  if (started) pthread_join(helper->thread, NULL);
  helper->state = THREAD_FREE;
}

void errands_free(struct errands *errands) {
  // on_done may submit more: until nothing is left.
  while (errands->pending > 0) {
    for (uint32_t i = 0; i < errands->helper_count; i++) helper_join(&errands->helpers[i]);
    errands_finish(errands);
  }
  for (uint32_t i = 0; i < errands->helper_count; i++) helper_join(&errands->helpers[i]);
  ev_io_stop(errands->loop->ev, &errands->wake);
  close(errands->wake_fd);
  pthread_mutex_destroy(&errands->mutex);
  free(errands);
}
