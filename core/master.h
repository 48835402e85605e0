// SPDX-License-Identifier: Apache-2.0
// The parent process: checks configurations, keeps the listening sockets, starts and watches workers, follows files and
// signals. Runs no plugin and carries no traffic.
//
//   signal              does
//   SIGHUP              reload
//   SIGTERM SIGINT SIGQUIT  drain, then exit 0; a second one stops at once
//   SIGUSR1             open the log anew
//   SIGUSR2             upgrade: the binary is started again and takes over
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct title;

struct master_options {
  const char *program; // absolute path, for upgrades
  char *const *argv;   // likewise
  const char *version;
  const char *home;         // folder that holds lua/ and plugins/
  const char *const *files; // configuration
  uint32_t file_count;
  // Loads and judges the configuration in a child process and prints settings (settings.h) to stdout.
  int (*check)(void *context);
  void *check_context;
  struct title *title;
  bool daemon;  // once there is a state_dir, the log is STATE_DIR/sluice.log
  int ready_fd; // gets "ready" or "failed REASON" as one line when the start has ended; -1: nobody asks
};

// Runs until told to end; gives the exit code.
int master_run(const struct master_options *options);
