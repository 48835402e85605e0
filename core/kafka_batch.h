// SPDX-License-Identifier: Apache-2.0
// Many records, one coroutine that waits for their fates: no entry into Lua a record, none of their results kept longer
// than 1024 records.
//
//   index  1 ... oldest ............ newest      places: a ring that grows from 8 to 1024
//                taken told waiting told waiting
//
// A record has a place from its being added until its fate was told and taken; nothing is added that has no place. What
// is told goes into a list, in the order of its coming, which kafka_batch_next walks.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"

struct kafka_batches; // those of one worker
struct kafka_batch;

struct kafka_batches *kafka_batches_new(struct worker *worker);
// Nobody is woken any more.
void kafka_batches_free(struct kafka_batches *batches);

// A record that is not told within `timeout_s` (0: whenever it will be) is told as BRIDGE_TIMEOUT. NULL: no memory.
struct kafka_batch *kafka_batch_new(struct kafka_batches *batches, double timeout_s);
// Whoever waits is told BRIDGE_CLOSED. Its records go on; nobody hears of them.
void kafka_batch_free(struct kafka_batch *batch);
// A number that finds it again while it lives, and is never used twice.
double kafka_batch_number(const struct kafka_batch *batch);
struct kafka_batch *kafka_batch_find(struct kafka_batches *batches, double number);

// A place for one more record, whose index it gives, from 1; 0: there is none.
uint32_t kafka_batch_place(struct kafka_batch *batch);
// The record of that index, which was placed last, was not queued after all.
void kafka_batch_unplace(struct kafka_batch *batch, uint32_t index);
// What became of a record. Called on the loop; without effect when the batch is gone, or has told it already.
void kafka_batch_tell(void *batches, double number, uint32_t index, const struct kafka_result *result);

// OK: all were told (`all`), or kafka_batch_next has one. NONE: it will never have one, for none is waited for. AGAIN:
// the running coroutine is woken when it is worth asking again, or with BRIDGE_TIMEOUT. TIMEOUT: so it is, and
// `timeout_s` is 0. A coroutine that waits already is told CLOSED: a batch has one user.
int kafka_batch_wait(struct kafka_batch *batch, bool all, double timeout_s);
// The index of a record that was told; each comes once. 0: none now.
uint32_t kafka_batch_next(struct kafka_batch *batch);
// OK, and the record's place is free for another; AGAIN: not told yet; NONE: never added, or forgotten.
int kafka_batch_result(struct kafka_batch *batch, double index, struct kafka_result *out);
