// SPDX-License-Identifier: Apache-2.0
// The files by which a running gateway is found, under its state_dir: sluice.pid, control.sock, lock, sluice.log.
#pragma once
#include <stdint.h>

#include "error.h"

enum { STATEDIR_PATH = 4096 };

// STATE_DIR/NAME in the caller's buffer.
const char *statedir_path(const char *state_dir, const char *name, char out[STATEDIR_PATH]);

// Makes the folder and takes its lock, which says that a gateway runs there and ends with the last process that has the
// descriptor. Gives it, or a negative code: another gateway holds it.
int statedir_lock(const char *state_dir, struct error *error);

// Removes the snapshots (files named by their revision) in the folder of `snapshot` that are older than `revision`.
void statedir_forget_snapshots(const char *snapshot, int64_t revision);

// Replaces the pid file in one step.
int statedir_write_pid(const char *state_dir, int32_t pid, struct error *error);

// Opens `path` for appending and puts it in place of standard output and error.
int statedir_log_to(const char *path, struct error *error);
