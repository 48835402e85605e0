// SPDX-License-Identifier: Apache-2.0
// The name that `ps` shows for this process.
#include "title.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

void title_init(struct title *title, int argc, char **argv) {
  char *end = argv[0];
  for (int i = 0; i < argc; i++)
    if (argv[i] == end) end = argv[i] + strlen(argv[i]) + 1;
  size_t count = 0;
  while (environ[count]) count++;
  char **copy = calloc(count + 1, sizeof *copy);
  assert(copy);
  for (size_t i = 0; i < count; i++) {
    if (environ[i] == end) end = environ[i] + strlen(environ[i]) + 1;
    copy[i] = strdup(environ[i]);
    assert(copy[i]);
  }
  environ = copy;
  *title = (struct title){.area = argv[0], .size = (size_t)(end - argv[0])};
}

void title_set(struct title *title, const char *text) {
  if (title->size < 2) return;
  size_t len = strlen(text);
  if (len > title->size - 2) len = title->size - 2;
  memcpy(title->area, text, len);
  memset(title->area + len, 0, title->size - len);
  prctl(PR_SET_NAME, text);
}
