// SPDX-License-Identifier: Apache-2.0
// One wait for several readers: the first that has something ends it for all.
#include <stdlib.h>

#include "kafka_reader.h"

struct many {
  struct kafka_wait wait; // of the caller
  bool ending;
  uint32_t count;
  struct kafka_reader *readers[];
};

static void on_one_ready(struct kafka_reader *reader, const struct kafka_wait *wait, int status) {
  struct many *many = wait->context;
  struct kafka_wait outer = many->wait;
  many_end(many);
  outer.on_ready(reader, &outer, status); // any of the readers may be gone now
}

bool many_is(const struct kafka_wait *wait) {
  return wait->on_ready == on_one_ready;
}

void many_end(struct many *many) {
  if (many->ending) return; // the end of each reader's wait comes by here
  many->ending = true;
  for (uint32_t i = 0; i < many->count; i++) {
    const struct kafka_wait *wait = kafka_reader_waiting(many->readers[i]);
    if (wait && wait->context == many) kafka_reader_unwait(many->readers[i]);
  }
  free(many);
}

int kafka_readers_wait(struct kafka_reader *const *readers, uint32_t count, int64_t timeout_us,
                       const struct kafka_wait *wait) {
  struct many *many = calloc(1, sizeof *many + count * sizeof(struct kafka_reader *));
  if (!many) return BRIDGE_FULL;
  many->wait = *wait;
  for (; many->count < count; many->count++) {
    struct kafka_wait one = {.on_ready = on_one_ready, .context = many, .number = wait->number};
    if (kafka_reader_wait(readers[many->count], many->count == 0 ? timeout_us : -1, &one) != BRIDGE_OK) {
      many_end(many);
      return BRIDGE_FULL;
    }
    many->readers[many->count] = readers[many->count];
  }
  return BRIDGE_OK;
}
