// SPDX-License-Identifier: Apache-2.0
// A table of slots that doubles, its free ones in a list.
#include "kafka_slots.h"

#include <stdlib.h>

#include "error.h"

enum { SLOT_BITS = 20, SLOTS_FIRST = 64 };

static int slots_grow(struct kafka_slots *slots, uint32_t most) {
  uint32_t count = slots->count ? slots->count * 2 : SLOTS_FIRST;
  if (count > 1u << SLOT_BITS || slots->count >= most) return ERROR_MEMORY;
  struct kafka_slot *grown = realloc(slots->slots, count * sizeof *grown);
  if (!grown) return ERROR_MEMORY;
  for (uint32_t i = count; i-- > slots->count;) {
    grown[i] = (struct kafka_slot){.next_free = slots->free};
    slots->free = i + 1;
  }
  slots->slots = grown;
  slots->count = count;
  return 0;
}

int kafka_slots_take(struct kafka_slots *slots, uint32_t most, void *thing, uint32_t *slot) {
  if (!slots->free && slots_grow(slots, most) != 0) return ERROR_MEMORY;
  *slot = slots->free - 1;
  struct kafka_slot *taken = &slots->slots[*slot];
  slots->free = taken->next_free;
  taken->generation++;
  taken->thing = thing;
  return 0;
}

void kafka_slots_give(struct kafka_slots *slots, uint32_t slot) {
  slots->slots[slot].thing = NULL;
  slots->slots[slot].next_free = slots->free;
  slots->free = slot + 1;
}

double kafka_slots_number(const struct kafka_slots *slots, uint32_t slot) {
  return (double)((uint64_t)slots->slots[slot].generation << SLOT_BITS | slot);
}

void *kafka_slots_find(const struct kafka_slots *slots, double number) {
  if (!(number >= 0 && number < 9007199254740992.0)) return NULL;
  uint64_t whole = (uint64_t)number, index = whole & ((1u << SLOT_BITS) - 1);
  if (index >= slots->count || slots->slots[index].generation != whole >> SLOT_BITS) return NULL;
  return slots->slots[index].thing;
}

void kafka_slots_close(struct kafka_slots *slots) {
  free(slots->slots);
  *slots = (struct kafka_slots){0};
}
