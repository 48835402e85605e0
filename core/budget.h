// SPDX-License-Identifier: Apache-2.0
// Budgets: how much more than what clients ask for may go to services. Retries and hedged requests are bound to a share
// of the requests of the last seconds, over all workers, so that they do not multiply a load which is what makes a
// service fail. A budget is the worker's and outlives generations; what it counts stands in the shared counters.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "slice.h"

struct budget;
struct worker;

// Defines the budget of that name, or changes it: more than is asked for may be `share` (1: as much again) of the requests of
// the last `window_us`, and `per_second` besides. `spent` and `refused` (may be 0) are named counters that tell of it. Its
// number, from 1; 0: no room.
uint32_t budget_define(struct worker *worker, struct slice name, double share, double per_second, int64_t window_us);
void budget_count_in(struct worker *worker, uint32_t number, int64_t spent, int64_t refused);
struct budget *budget_find(struct worker *worker, uint32_t number); // NULL: none
void budgets_close(struct worker *worker);

// A request of a client's.
void budget_earn(struct worker *worker, struct budget *budget);
// One more than that. False: there have been enough.
bool budget_spend(struct worker *worker, struct budget *budget);
// It was not sent after all.
void budget_give_back(struct worker *worker, struct budget *budget);
