// SPDX-License-Identifier: Apache-2.0
// What every child of the master does first. The master blocks its signals and reads them from a descriptor; its
// children must not, and must not hold what is the master's.
#pragma once
#include <stdint.h>
#include <sys/types.h>

// Forks. In the child: dies with the parent, takes default signals (those a terminal or a service manager sends to the
// whole group are left to the master), keeps standard streams and `keep` and closes every other descriptor. Gives the
// child's pid, 0 in the child, or negative with errno.
pid_t child_fork(const int *keep, uint32_t count);

// "exited with code 1", "was killed by signal 9 (Killed)".
const char *child_end(int status, char *out, uint32_t size);
