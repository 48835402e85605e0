// SPDX-License-Identifier: Apache-2.0
// The name that `ps` shows for this process.
#pragma once
#include <stddef.h>

// Where the kernel reads the command line: the bytes of argv and of the environment behind it.
struct title {
  char *area;
  size_t size;
};

// Call first in main: moves the environment away, so that its bytes can hold a longer title. argv stays readable until
// title_set; copy what is needed later.
void title_init(struct title *title, int argc, char **argv);
void title_set(struct title *title, const char *text);
