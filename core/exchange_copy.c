// SPDX-License-Identifier: Apache-2.0
// A copy of a request's content on its way to the service, for a plugin that wants to see it later without making anybody
// wait for it. Bounded: content that grows past the bound is not kept at all.
#include "exchange_parts.h"
#include "worker.h"

struct body_copy {
  struct buffer content;
  uint64_t most;
  bool lost;
};

static void lose(struct body_copy *copy) {
  buffer_clear(&copy->content);
  copy->lost = true;
}

// With the content that has come so far.
int exchange_copy_body(struct exchange *exchange, uint64_t most) {
  if (exchange->state > EXCHANGE_ACCESS) return BRIDGE_LATE;
  if (!exchange->copy) {
    exchange->copy = arena_alloc(&exchange->arena, sizeof *exchange->copy);
    if (!exchange->copy) return BRIDGE_FULL;
    *exchange->copy = (struct body_copy){.most = most};
    buffer_init(&exchange->copy->content, &exchange->worker->chunks);
    if (exchange->request_body.bytes > most || buffer_share(&exchange->copy->content, &exchange->request_body) < 0)
      lose(exchange->copy);
  } else if (most > exchange->copy->most) {
    exchange->copy->most = most;
  }
  return BRIDGE_OK;
}

// Copied, not referred to: what waits here must not hold chunks that are nearly empty.
void exchange_copy_piece(struct exchange *exchange, struct slice piece) {
  struct body_copy *copy = exchange->copy;
  if (copy->lost) return;
  if (copy->content.bytes + piece.len > copy->most || buffer_append(&copy->content, piece.data, piece.len) < 0)
    lose(copy);
}

// NULL: there is no copy, or not all of it; `*lost` tells whether it was too large.
const struct buffer *exchange_body_copy(const struct exchange *exchange, bool *lost) {
  const struct body_copy *copy = exchange->copy;
  *lost = copy && copy->lost;
  return copy && !copy->lost && exchange->request_complete ? &copy->content : NULL;
}

void exchange_drop_copy(struct exchange *exchange) {
  if (!exchange->copy) return;
  buffer_clear(&exchange->copy->content);
  exchange->copy = NULL;
}
