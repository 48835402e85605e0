// SPDX-License-Identifier: Apache-2.0
// Watches files and folders (with all below them) by inotify and tells, once things have come to rest, that something
// changed. Survives editors that save by renaming, folders that are replaced, and links that are turned (ConfigMaps).
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "loop.h"

struct watch;

enum {
  WATCH_REST_MS = 25, // told that long after the last event: an editor's save is several
  WATCH_MOST_MS = 100 // but never later than this after the first
};

// `on_change` gets the path of the first change of the burst. NULL with the cause in `error`.
struct watch *watch_new(struct loop *loop, void (*on_change)(void *context, const char *path), void *context,
                        struct error *error);

// Watches these paths and no others. What does not exist yet is watched for in its folder. 0, or a negative code when
// some could not be watched (the others are).
int watch_set(struct watch *watch, const char *const *paths, uint32_t count, struct error *error);

void watch_free(struct watch *watch);
