// SPDX-License-Identifier: Apache-2.0
// What Lua may call of channels.
#include "channel.h"
#include "exchange.h"
#include "phase.h"
#include "worker.h"

double bridge_channel_new(struct worker *worker, const struct channel_options *options) {
  return channel_new(worker, options);
}

int bridge_channel_put(struct worker *worker, double handle, const struct channel_message *message) {
  struct channel *channel = channel_find(worker, handle);
  return channel ? channel_put(channel, message) : BRIDGE_STALE;
}

int bridge_channel_move(struct worker *worker, double handle, uint32_t slot, double offset) {
  struct channel *channel = channel_find(worker, handle);
  return channel ? channel_move(channel, slot, offset) : BRIDGE_STALE;
}

double bridge_channel_position(struct worker *worker, double handle, uint32_t slot) {
  const struct channel *channel = channel_find(worker, handle);
  return channel ? channel_position(channel, slot) : -1;
}

int bridge_channel_flush(struct worker *worker, double handle) {
  struct channel *channel = channel_find(worker, handle);
  if (!channel) return BRIDGE_STALE;
  channel_flush(channel);
  return BRIDGE_OK;
}

bool bridge_channel_busy(struct worker *worker, double handle) {
  const struct channel *channel = channel_find(worker, handle);
  return channel && channel_is_busy(channel);
}

int bridge_channel_join(struct worker *worker, double handle, double exchange_handle, const struct channel_seat *seat) {
  struct channel *channel = channel_find(worker, handle);
  if (!channel) return BRIDGE_STALE;
  struct exchange *exchange = exchange_find(worker, exchange_handle);
  return exchange ? channel_join(channel, exchange, seat) : BRIDGE_CLOSED;
}

int bridge_channel_behind(struct worker *worker, double handle, struct channel_fallen *out, double *positions) {
  struct channel *channel = channel_find(worker, handle);
  return channel ? channel_take_behind(channel, out, positions) : BRIDGE_STALE;
}

int bridge_channel_wait(struct worker *worker, double handle, double seconds) {
  struct channel *channel = channel_find(worker, handle);
  if (!channel) return BRIDGE_STALE;
  channel_watch(channel, phase_self(worker));
  return bridge_wait(worker, seconds);
}

int32_t bridge_channel_seats(struct worker *worker, double handle) {
  const struct channel *channel = channel_find(worker, handle);
  return channel ? (int32_t)channel_seats(channel) : -1;
}

int bridge_channel_close(struct worker *worker, double handle) {
  struct channel *channel = channel_find(worker, handle);
  if (!channel) return BRIDGE_STALE;
  channel_close(channel);
  return BRIDGE_OK;
}
