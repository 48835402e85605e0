// SPDX-License-Identifier: Apache-2.0
// What Lua may call of WebSockets whose other end is a plugin.
#include "exchange.h"
#include "exchange_talk.h"
#include "worker.h"

int bridge_talk_accept(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? talk_accept(exchange) : BRIDGE_STALE;
}

int bridge_talk_send(struct worker *worker, double handle, int opcode, const char *data, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? talk_send(exchange, opcode, (struct slice){data, len}) : BRIDGE_CLOSED;
}

int bridge_talk_receive(struct worker *worker, double handle, double seconds, struct talk_message *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? talk_receive(exchange, seconds, out) : BRIDGE_CLOSED;
}

int bridge_talk_close(struct worker *worker, double handle, int code, const char *reason, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? talk_close(exchange, code, (struct slice){reason, len}) : BRIDGE_CLOSED;
}

int bridge_talk_end_code(struct worker *worker, double handle) {
  const struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? talk_end_code(exchange) : 0;
}

bool bridge_talk_asked(struct worker *worker, double handle) {
  const struct exchange *exchange = exchange_find(worker, handle);
  return exchange && talk_is_asked(exchange);
}
