// SPDX-License-Identifier: Apache-2.0
// A window is ten parts, each with a counter of what was earned in it and one of what was spent; they end by themselves.
#include "budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "worker.h"

enum { BUDGETS_MOST = 4096, PARTS = 10, NAME_MOST = 200, KEY_BYTES = NAME_MOST + 48 };

struct budget {
  double share, per_second;
  int64_t part_us;
  int64_t part; // that `earned` is the key of
  int64_t spent_handle, refused_handle;
  uint32_t name_len, earned_len;
  char name[NAME_MOST], earned[KEY_BYTES];
};

static struct budget *find_name(struct worker *worker, struct slice name, uint32_t *number) {
  for (uint32_t i = 0; i < worker->budget_count; i++) {
    struct budget *budget = worker->budgets[i];
    *number = i + 1;
    if (budget->name_len == name.len && memcmp(budget->name, name.data, name.len) == 0) return budget;
  }
  return NULL;
}

static struct budget *add_name(struct worker *worker, struct slice name, uint32_t *number) {
  if (worker->budget_count == BUDGETS_MOST || name.len > NAME_MOST) return NULL;
  struct budget **budgets = realloc(worker->budgets, (worker->budget_count + 1) * sizeof *budgets);
  if (!budgets) return NULL;
  worker->budgets = budgets;
  struct budget *budget = calloc(1, sizeof *budget);
  if (!budget) return NULL;
  memcpy(budget->name, name.data, name.len);
  budget->name_len = name.len;
  budgets[worker->budget_count++] = budget;
  *number = worker->budget_count;
  return budget;
}

uint32_t budget_define(struct worker *worker, struct slice name, double share, double per_second, int64_t window_us) {
  uint32_t number;
  struct budget *budget = find_name(worker, name, &number);
  if (!budget) budget = add_name(worker, name, &number);
  if (!budget) return 0;
  budget->share = share;
  budget->per_second = per_second;
  budget->part_us = window_us / PARTS > 0 ? window_us / PARTS : 1;
  budget->part = -1;
  return number;
}

void budget_count_in(struct worker *worker, uint32_t number, int64_t spent, int64_t refused) {
  struct budget *budget = budget_find(worker, number);
  if (!budget) return;
  budget->spent_handle = counters_is_handle(worker->counters, spent) ? spent : 0;
  budget->refused_handle = counters_is_handle(worker->counters, refused) ? refused : 0;
}

struct budget *budget_find(struct worker *worker, uint32_t number) {
  return number > 0 && number <= worker->budget_count ? worker->budgets[number - 1] : NULL;
}

void budgets_close(struct worker *worker) {
  for (uint32_t i = 0; i < worker->budget_count; i++) free(worker->budgets[i]);
  free(worker->budgets);
}

static uint32_t put_key(const struct budget *budget, char kind, int64_t part, char *key) {
  return (uint32_t)snprintf(key, KEY_BYTES, "%.*s\1%c%lld", (int)budget->name_len, budget->name, kind, (long long)part);
}

static int64_t ttl_us(const struct budget *budget) {
  return budget->part_us * (PARTS + 1);
}

void budget_earn(struct worker *worker, struct budget *budget) {
  int64_t now = worker->loop.clock.real_us, part = now / budget->part_us;
  int status;
  if (part != budget->part) {
    budget->part = part;
    budget->earned_len = put_key(budget, 'e', part, budget->earned);
  }
  counters_add(worker->counters, budget->earned, budget->earned_len, 1, ttl_us(budget), now, &status);
}

static int64_t sum(struct worker *worker, const struct budget *budget, char kind, int64_t part, int64_t now) {
  char key[KEY_BYTES];
  int status;
  int64_t total = 0;
  for (int64_t i = part - PARTS + 1; i <= part; i++)
    total += counters_get(worker->counters, key, put_key(budget, kind, i, key), now, NULL, &status);
  return total;
}

static void add_spent(struct worker *worker, const struct budget *budget, int64_t delta) {
  char key[KEY_BYTES];
  int status;
  int64_t now = worker->loop.clock.real_us;
  uint32_t len = put_key(budget, 's', now / budget->part_us, key);
  counters_add(worker->counters, key, len, delta, ttl_us(budget), now, &status);
}

// Counts first and looks then: of several that want the last one, none may get it, but never do too many.
bool budget_spend(struct worker *worker, struct budget *budget) {
  int64_t now = worker->loop.clock.real_us, part = now / budget->part_us;
  double seconds = (double)budget->part_us * PARTS / 1e6;
  double most = budget->share * (double)sum(worker, budget, 'e', part, now) + budget->per_second * seconds;
  add_spent(worker, budget, 1);
  bool may = (double)sum(worker, budget, 's', part, now) <= most;
  int64_t told = may ? budget->spent_handle : budget->refused_handle;
  if (!may) add_spent(worker, budget, -1);
  if (told) counters_add_at(worker->counters, told, 1);
  return may;
}

void budget_give_back(struct worker *worker, struct budget *budget) {
  add_spent(worker, budget, -1);
  if (budget->spent_handle) counters_add_at(worker->counters, budget->spent_handle, -1);
}
