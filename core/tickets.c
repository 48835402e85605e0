// SPDX-License-Identifier: Apache-2.0
// Keys of TLS session tickets.
#include "tickets.h"

#include <stdbool.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

static int memory_make(struct error *error) {
  int fd = memfd_create("sluice-tickets", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, sizeof(struct ticket_keys)) < 0) return error_system(error, "memory for ticket keys");
  return fd;
}

struct ticket_keys *tickets_map(int *fd, struct error *error) {
  bool fresh = *fd < 0;
  if (fresh && (*fd = memory_make(error)) < 0) return NULL;
  struct ticket_keys *tickets = mmap(NULL, sizeof *tickets, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
  if (tickets == MAP_FAILED) {
    error_system(error, "memory for ticket keys");
    return NULL;
  }
  if (fresh)
    for (int i = 0; i < TICKET_KEYS; i++) tickets_rotate(tickets);
  return tickets;
}

void tickets_rotate(struct ticket_keys *tickets) {
  uint32_t next = (tickets->current + 1) % TICKET_KEYS;
  ssize_t got = getrandom(tickets->keys[next], TICKET_KEY_BYTES, 0);
  if (got == TICKET_KEY_BYTES) __atomic_store_n(&tickets->current, next, __ATOMIC_RELEASE);
}
