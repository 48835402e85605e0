// SPDX-License-Identifier: Apache-2.0
// Watches files and folders by inotify.
//
// What inotify follows is an inode, what a user means is a name. So a file is watched through its folder, and a folder
// through its parent as well as from the inside:
//
//   roots:   /etc/sluice/sluice.yml       ./plugins
//   places:  /etc/sluice  only that name  .  only "plugins"   ./plugins  every name   ./plugins/hello  every name ...
//
// After any change of names the places are built anew: a few system calls, and no case to get wrong.
#include "watch.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  PLACES_MAX = 65536,
  DEPTH_MAX = 32,
  NAMES_CHANGE = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF,
  EVENTS = NAMES_CHANGE | IN_CLOSE_WRITE
};

// One name that matters in a watched folder, or all of them.
struct place {
  int descriptor;
  char *folder;
  char *name; // NULL: every name
};

struct watch {
  ev_io readable;
  ev_timer rest;
  struct loop *loop;
  int fd;
  void (*on_change)(void *context, const char *path);
  void *context;
  char **roots;
  uint32_t root_count;
  struct place *places;
  uint32_t place_count, place_room;
  bool pending;
  bool renamed; // names changed: build the places anew
  double first; // of the burst, on the loop's clock
  char changed[PATH_MAX];
};

// ---- Places -----------------------------------------------------------------------------------------------------

static bool is_noise(const char *name) {
  size_t len = strlen(name);
  return name[0] == '.' || (len > 0 && name[len - 1] == '~') || strcmp(name, "4913") == 0; // vim's probe
}

static void places_clear(struct watch *watch) {
  for (uint32_t i = 0; i < watch->place_count; i++) {
    free(watch->places[i].folder);
    free(watch->places[i].name);
  }
  watch->place_count = 0;
}

static int place_add(struct watch *watch, const char *folder, const char *name, struct error *error) {
  if (watch->place_count == PLACES_MAX) return error_set(error, ERROR_MEMORY, "too many folders to watch");
  int descriptor = inotify_add_watch(watch->fd, folder, EVENTS | IN_ONLYDIR);
  if (descriptor < 0) return error_system(error, "cannot watch %s", folder);
  if (watch->place_count == watch->place_room) {
    watch->place_room = watch->place_room ? watch->place_room * 2 : 32;
    watch->places = realloc(watch->places, watch->place_room * sizeof *watch->places);
    assert(watch->places);
  }
  watch->places[watch->place_count++] =
      (struct place){.descriptor = descriptor, .folder = strdup(folder), .name = name ? strdup(name) : NULL};
  return 0;
}

static int folder_add(struct watch *watch, const char *folder, int depth, struct error *error) {
  int result = place_add(watch, folder, NULL, error);
  DIR *dir = result == 0 && depth < DEPTH_MAX ? opendir(folder) : NULL;
  if (!dir) return result;
  for (struct dirent *entry; (entry = readdir(dir));) {
    char path[PATH_MAX];
    struct stat info;
    if (is_noise(entry->d_name)) continue;
    if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) continue;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode) && folder_add(watch, path, depth + 1, error) < 0)
      result = ERROR_SYSTEM;
  }
  closedir(dir);
  return result;
}

// The folder of `path` for this one name.
static int name_add(struct watch *watch, const char *path, struct error *error) {
  char folder[PATH_MAX];
  if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder) return ERROR_INVALID;
  char *slash = strrchr(folder, '/');
  if (!slash) return place_add(watch, ".", path, error);
  const char *name = path + (slash - folder) + 1;
  *(slash == folder ? slash + 1 : slash) = 0;
  return place_add(watch, folder, name, error);
}

static int root_add(struct watch *watch, const char *root, struct error *error) {
  struct stat info;
  char real[PATH_MAX];
  int result = name_add(watch, root, error);
  bool exists = stat(root, &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) return folder_add(watch, root, 0, error) < 0 ? ERROR_SYSTEM : result;
  // A link's own name rarely changes; what it leads to does.
  if (exists && lstat(root, &info) == 0 && S_ISLNK(info.st_mode) && realpath(root, real))
    return name_add(watch, real, error) < 0 ? ERROR_SYSTEM : result;
  return result;
}

// Adding comes before forgetting: a folder that stays watched loses no event, because it keeps its descriptor.
static int places_build(struct watch *watch, struct error *error) {
  struct place *old = watch->places;
  uint32_t old_count = watch->place_count;
  watch->places = NULL;
  watch->place_count = watch->place_room = 0;
  int result = 0;
  for (uint32_t i = 0; i < watch->root_count; i++)
    if (root_add(watch, watch->roots[i], error) < 0) result = ERROR_SYSTEM;
  for (uint32_t i = 0; i < old_count; i++) {
    bool kept = false;
    for (uint32_t k = 0; k < watch->place_count && !kept; k++) kept = watch->places[k].descriptor == old[i].descriptor;
    if (!kept) inotify_rm_watch(watch->fd, old[i].descriptor);
    free(old[i].folder);
    free(old[i].name);
  }
  free(old);
  return result;
}

// ---- Events -----------------------------------------------------------------------------------------------------

static void burst_note(struct watch *watch, const char *folder, const char *name) {
  double now = ev_now(watch->loop->ev);
  if (!watch->pending) {
    watch->pending = true;
    watch->first = now;
    snprintf(watch->changed, sizeof watch->changed, "%s%s%s", folder, *name ? "/" : "", name);
  }
  double rest = WATCH_REST_MS / 1000.0;
  double most = watch->first + WATCH_MOST_MS / 1000.0 - now;
  ev_timer_stop(watch->loop->ev, &watch->rest);
  ev_timer_set(&watch->rest, rest < most ? rest : (most > 0 ? most : 0), 0);
  ev_timer_start(watch->loop->ev, &watch->rest);
}

static bool place_matches(const struct place *place, const char *name) {
  if (!place->name) return !is_noise(name);
  // ConfigMaps turn the link "..data" beside the file.
  return strcmp(place->name, name) == 0 || strcmp(name, "..data") == 0;
}

static void event_take(struct watch *watch, const struct inotify_event *event) {
  if (event->mask & IN_Q_OVERFLOW) {
    watch->renamed = true;
    burst_note(watch, "(many)", "");
    return;
  }
  const char *name = event->len ? event->name : "";
  for (uint32_t i = 0; i < watch->place_count; i++) {
    const struct place *place = &watch->places[i];
    if (place->descriptor != event->wd || !place_matches(place, name)) continue;
    if (event->mask & NAMES_CHANGE) watch->renamed = true;
    burst_note(watch, place->folder, name);
    return;
  }
}

static void on_events(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev, (void)events;
  struct watch *watch = watcher->data;
  _Alignas(struct inotify_event) char bytes[16384];
  ssize_t n = read(watch->fd, bytes, sizeof bytes);
  for (ssize_t at = 0; at < n;) {
    const struct inotify_event *event = (const struct inotify_event *)(const void *)(bytes + at);
    event_take(watch, event);
    at += (ssize_t)(sizeof *event + event->len);
  }
  // At once, not at rest: files saved into a new folder meanwhile are events too.
  if (watch->renamed) places_build(watch, NULL);
  watch->renamed = false;
}

static void on_rest(struct ev_loop *ev, ev_timer *timer, int events) {
  (void)ev, (void)events;
  struct watch *watch = timer->data;
  watch->pending = false;
  watch->on_change(watch->context, watch->changed);
}

// ---- Life -------------------------------------------------------------------------------------------------------

struct watch *watch_new(struct loop *loop, void (*on_change)(void *context, const char *path), void *context,
                        struct error *error) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) {
    error_system(error, "inotify");
    return NULL;
  }
  struct watch *watch = calloc(1, sizeof *watch);
  assert(watch);
  watch->loop = loop;
  watch->fd = fd;
  watch->on_change = on_change;
  watch->context = context;
  ev_io_init(&watch->readable, on_events, fd, EV_READ);
  ev_timer_init(&watch->rest, on_rest, 0, 0);
  watch->readable.data = watch->rest.data = watch;
  ev_io_start(loop->ev, &watch->readable);
  return watch;
}

static void roots_clear(struct watch *watch) {
  for (uint32_t i = 0; i < watch->root_count; i++) free(watch->roots[i]);
  free(watch->roots);
  watch->roots = NULL;
  watch->root_count = 0;
}

int watch_set(struct watch *watch, const char *const *paths, uint32_t count, struct error *error) {
  roots_clear(watch);
  watch->roots = calloc(count ? count : 1, sizeof *watch->roots);
  assert(watch->roots);
  for (uint32_t i = 0; i < count; i++) {
    char *path = strdup(paths[i]);
    for (size_t len = strlen(path); len > 1 && path[len - 1] == '/'; len--) path[len - 1] = 0;
    watch->roots[watch->root_count++] = path;
  }
  return places_build(watch, error);
}

void watch_free(struct watch *watch) {
  ev_io_stop(watch->loop->ev, &watch->readable);
  ev_timer_stop(watch->loop->ev, &watch->rest);
  close(watch->fd);
  places_clear(watch);
  free(watch->places);
  roots_clear(watch);
  free(watch);
}
