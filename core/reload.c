// SPDX-License-Identifier: Apache-2.0
// From a wish to a live generation.
#include "reload.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "statedir.h"
#include "watch.h"
#include "workers.h"

static struct log *log_of(struct reload *reload) {
  return reload->options.loop->log;
}

static struct clock *clock_of(struct reload *reload) {
  return &reload->options.loop->clock;
}

static bool is_first(const struct reload *reload) {
  return reload->settings == NULL;
}

// ---- The end of a reload ----------------------------------------------------------------------------------------

static void reload_begin(struct reload *reload, const char *reason);

static void reload_end(struct reload *reload, const struct settings *refused) {
  reload->options.on_end(reload->options.context, refused);
  if (reload->again && !is_first(reload) && !reload->check && !reload->staging && !reload->stopped)
    reload_begin(reload, reload->again_reason);
}

static void watch_paths(struct reload *reload, const struct settings *also) {
  struct error error;
  const struct settings *now = reload->settings;
  uint32_t count = (now ? now->watch_count : 0) + (also ? also->watch_count : 0);
  const char **paths = calloc(count + 1, sizeof *paths);
  assert(paths);
  count = 0;
  for (uint32_t i = 0; now && i < now->watch_count; i++) paths[count++] = now->watch[i];
  for (uint32_t i = 0; also && i < also->watch_count; i++) paths[count++] = also->watch[i];
  if (watch_set(reload->options.watch, paths, count, &error) < 0)
    log_warn(log_of(reload), "some changes will not be seen", "reason", error.text);
  free(paths);
}

// Takes `refused`, which has the errors. Where the mistake is may be a file that the running generation did not have:
// the files of both are watched.
static void reload_fail(struct reload *reload, struct settings *refused) {
  struct text errors = {0};
  errors_array(refused, &errors);
  history_fail(&reload->history, clock_of(reload), errors.data);
  text_free(&errors);
  if (!is_first(reload)) {
    for (uint32_t i = 0; i < refused->error_count; i++) error_log(log_of(reload), refused->errors[i]);
    log_error(log_of(reload), "reload failed, the running generation stays", "reason", reload->history.last.reason);
    watch_paths(reload, refused);
  }
  reload_end(reload, refused);
  settings_free(refused);
}

static void candidate_fail(struct reload *reload, const char *json) {
  struct settings *refused = reload->candidate;
  reload->candidate = NULL;
  settings_refuse(refused, json);
  reload_fail(reload, refused);
}

static void candidate_fail_text(struct reload *reload, const char *message) {
  struct settings *refused = reload->candidate;
  reload->candidate = NULL;
  settings_fail(refused, "%s", message);
  reload_fail(reload, refused);
}

static void log_configure(struct reload *reload, const struct settings *settings) {
  static const char *const levels[] = {"debug", "info", "notice", "warn", "error", "crit"};
  struct log *log = log_of(reload);
  char line[48];
  if (log->level == (enum log_level)settings->log_level && log->json == settings->log_json) return;
  log->level = (enum log_level)settings->log_level;
  log->json = settings->log_json;
  snprintf(line, sizeof line, "log %s %s", levels[settings->log_level], settings->log_json ? "json" : "text");
  if (reload->workers) workers_tell(reload->workers, line);
}

// The candidate is what runs now.
static void reload_commit(struct reload *reload) {
  struct settings *old = reload->settings, *now = reload->candidate;
  reload->settings = now;
  reload->candidate = NULL;
  if (old && strcmp(old->state_dir, now->state_dir) != 0)
    log_warn(log_of(reload), "a new state_dir needs a restart", "state_dir", now->state_dir);
  struct workers_plan plan = {now, &reload->listeners};
  workers_replan(reload->workers, &plan);
  embedded_keep(&reload->embedded, (const char *const *)now->embedded, now->embedded_count);
  log_configure(reload, now);
  watch_paths(reload, NULL);
  // Only now: those of attempts that failed had to stay, for a revision is never used twice.
  statedir_forget_snapshots(now->snapshot, now->revision);
  history_ok(&reload->history, clock_of(reload), now->revision, !old || old->revision != now->revision);
  settings_free(old);
}

static void reload_succeed(struct reload *reload) {
  char revision[32], took[32], check[32];
  reload_commit(reload);
  const struct outcome *last = &reload->history.last;
  log_notice(log_of(reload), last->changed ? "generation is live" : "nothing has changed", "revision",
             log_number(revision, last->revision), "reason", last->reason, "took_ms",
             log_number(took, last->took_us / 1000), "check_ms", log_number(check, last->check_us / 1000));
  reload_end(reload, NULL);
}

// ---- Its way ----------------------------------------------------------------------------------------------------

// A new set of workers, beside the running one until it is live: the first, or because sockets or their number changed.
static void reload_launch(struct reload *reload) {
  struct error error;
  struct settings *candidate = reload->candidate;
  if (listeners_open(&reload->next_listeners, &reload->listeners, candidate->listens, candidate->listen_count,
                     candidate->workers, &error) < 0) {
    candidate_fail_text(reload, error.text);
    return;
  }
  struct workers_plan plan = {candidate, &reload->next_listeners};
  reload->staging = reload->launching = true;
  workers_launch(reload->workers, &plan, candidate->revision, candidate->snapshot);
}

static void reload_first(struct reload *reload) {
  struct error error;
  log_configure(reload, reload->candidate);
  reload->workers = reload->options.on_first(reload->options.context, reload->candidate, &error);
  if (reload->workers)
    reload_launch(reload);
  else
    candidate_fail_text(reload, error.text);
}

static void reload_stage(struct reload *reload) {
  const struct settings *candidate = reload->candidate;
  if (settings_differ(reload->settings, candidate)) {
    reload_launch(reload);
  } else if (candidate->revision == reload->settings->revision) {
    reload_succeed(reload);
  } else {
    reload->staging = true;
    workers_stage(reload->workers, candidate->revision, candidate->snapshot);
  }
}

static int64_t changed_us(const char *path) {
  struct stat it;
  if (stat(path, &it) < 0 || !S_ISREG(it.st_mode)) return 0;
  return (int64_t)it.st_ctim.tv_sec * 1000000 + it.st_ctim.tv_nsec / 1000;
}

// Nothing was watched while the first configuration was read, and until it is live more may change.
static void watch_first(struct reload *reload) {
  const struct settings *candidate = reload->candidate;
  watch_paths(reload, candidate);
  for (uint32_t i = 0; i < candidate->watch_count; i++) {
    if (changed_us(candidate->watch[i]) <= reload->history.next.at_us) continue;
    reload->again = true;
    snprintf(reload->again_reason, sizeof reload->again_reason, "changed %.200s", candidate->watch[i]);
  }
}

static void on_checked(void *context, struct settings *settings) {
  struct reload *reload = context;
  reload->check = NULL;
  history_checked(&reload->history, clock_of(reload));
  for (uint32_t i = 0; i < settings->warning_count; i++) warning_log(log_of(reload), settings->warnings[i]);
  if (settings->error_count) {
    reload_fail(reload, settings);
    return;
  }
  reload->candidate = settings;
  if (is_first(reload)) watch_first(reload);
  struct error error;
  const char *const *embedded = (const char *const *)settings->embedded;
  if (embedded_run(&reload->embedded, embedded, settings->embedded_count, &error) < 0)
    candidate_fail_text(reload, error.text);
  else if (is_first(reload))
    reload_first(reload);
  else
    reload_stage(reload);
}

static void reload_begin(struct reload *reload, const char *reason) {
  struct check_options options = {.run = reload->options.check,
                                  .run_context = reload->options.check_context,
                                  .timeout_ms = reload->options.check_ms,
                                  .title = reload->options.title,
                                  .on_done = on_checked,
                                  .context = reload};
  history_begin(&reload->history, clock_of(reload), reason);
  reload->again = false;
  reload->options.on_begin(reload->options.context);
  reload->check = check_start(reload->options.loop, &options);
  if (reload->check) return;
  struct settings *refused = settings_new();
  settings_fail(refused, "cannot start the checker: %s", strerror(errno));
  on_checked(reload, refused);
}

// Whose sockets are the right ones is clear now: those of the other table go.
static void listeners_settle(struct reload *reload, bool ok) {
  if (!reload->launching) return;
  struct listeners *keep = ok ? &reload->next_listeners : &reload->listeners;
  struct listeners *drop = ok ? &reload->listeners : &reload->next_listeners;
  listeners_close(drop, keep);
  reload->listeners = *keep;
  reload->next_listeners = (struct listeners){0};
  reload->launching = false;
}

void reload_settled(struct reload *reload, const char *failure) {
  if (reload->stopped) return;
  reload->staging = false;
  listeners_settle(reload, failure == NULL);
  if (failure)
    candidate_fail(reload, failure);
  else
    reload_succeed(reload);
}

// ---- Outside ----------------------------------------------------------------------------------------------------

void reload_ask(struct reload *reload, const char *reason) {
  if (reload->stopped) return;
  if (!reload->check && !reload->staging) {
    reload_begin(reload, reason);
    return;
  }
  reload->again = true;
  snprintf(reload->again_reason, sizeof reload->again_reason, "%s", reason);
}

bool reload_reap(struct reload *reload, pid_t pid, int status) {
  if (!reload->check || pid != check_pid(reload->check)) return false;
  check_exited(reload->check, status);
  return true;
}

void reload_stop(struct reload *reload) {
  reload->stopped = true;
  if (reload->check) check_cancel(reload->check);
  reload->check = NULL;
  if (reload->launching) listeners_close(&reload->next_listeners, &reload->listeners);
  reload->launching = false;
  listeners_close(&reload->listeners, NULL);
}

void reload_init(struct reload *reload, const struct reload_options *options, const struct listeners *inherited) {
  *reload = (struct reload){.options = *options, .listeners = *inherited};
  embedded_init(&reload->embedded, options->title);
}

void reload_close(struct reload *reload) {
  if (!reload->stopped) reload_stop(reload);
  embedded_close(&reload->embedded);
  settings_free(reload->candidate);
  settings_free(reload->settings);
  history_close(&reload->history);
}
