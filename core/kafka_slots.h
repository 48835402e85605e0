// SPDX-License-Identifier: Apache-2.0
// Numbers that find a thing again while it lives, and nothing after: a slot and the slot's generation.
#pragma once
#include <stdint.h>

struct kafka_slot {
  void *thing; // NULL: free
  uint32_t generation;
  uint32_t next_free;
};

// All zero is an empty table.
struct kafka_slots {
  struct kafka_slot *slots;
  uint32_t count, free; // free: 0 or index + 1
};

// Gives `thing` a slot, at most `most` at one time. 0 or ERROR_MEMORY.
int kafka_slots_take(struct kafka_slots *slots, uint32_t most, void *thing, uint32_t *slot);
void kafka_slots_give(struct kafka_slots *slots, uint32_t slot);
double kafka_slots_number(const struct kafka_slots *slots, uint32_t slot);
// NULL: what had this number is gone, or never was.
void *kafka_slots_find(const struct kafka_slots *slots, double number);
void kafka_slots_close(struct kafka_slots *slots);
