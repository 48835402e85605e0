// SPDX-License-Identifier: Apache-2.0
// Channels: what one coroutine writes, many streamed answers get. Each message is encoded once and lies in memory once,
// in a bounded window; an answer that reads it is a seat, which needs no coroutine.
//
//   put ──> window: first . . . . . next          a seat is  current  all has been sent
//                    |      |      |                         due      there is more, and its turn comes
//                  behind  full  current                     full     its client has to take some first
//                                                            behind   what it would get next has left the window
//
// A message may stand at a position (of a record: slot is the partition, offset its place there). Then its event gets an
// id that tells the last offset of every slot, for clients to come back with. A seat that has had other records than
// the rest, for it joined with positions of its own, skips what it has had and gets ids of its own until it is level.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "slice.h"

struct channel;
struct exchange;
struct seat;
struct worker;

// The handle, or 0: no memory, or too many.
double channel_new(struct worker *worker, const struct channel_options *options);
struct channel *channel_find(struct worker *worker, double handle); // NULL: it has ended
int channel_put(struct channel *channel, const struct channel_message *message);
// The position of a slot changes without a message. Backwards: what the window holds is of no use any more.
int channel_move(struct channel *channel, uint32_t slot, double offset);
double channel_position(const struct channel *channel, uint32_t slot);
// Has everybody sent what has been put.
void channel_flush(struct channel *channel);
// Some whose clients would take it have not been sent all that was put: who puts more should wait a turn.
bool channel_is_busy(const struct channel *channel);
// The exchange, whose answer is streamed, takes a seat.
int channel_join(struct channel *channel, struct exchange *exchange, const struct channel_seat *seat);
// One who has fallen behind leaves its seat; BRIDGE_NONE: there is none. `positions` has room for every slot, the key's
// bytes live until the next call.
int channel_take_behind(struct channel *channel, struct channel_fallen *out, double *positions);
// The coroutine that is woken when somebody falls behind, or the last seat is left.
void channel_watch(struct channel *channel, double coroutine);
uint32_t channel_seats(const struct channel *channel);
// All answers end, behind what they have still to get; the handle is stale from here on.
void channel_close(struct channel *channel);
// Of a worker that ends.
void channels_close(struct worker *worker);

// From the exchange: its client can take more; it ends.
void seat_on_drained(struct seat *seat);
void seat_leave(struct seat *seat);
