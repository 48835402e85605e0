// SPDX-License-Identifier: Apache-2.0
// Keys of TLS session tickets, in memory that all workers share and that an upgrade hands on.
#pragma once
#include "error.h"
#include "process.h"

enum { TICKET_ROTATE_S = 3600 }; // with three keys a ticket can be opened for two to three hours

// Maps the keys behind `*fd`, or makes new ones (and `*fd`) when it is -1. NULL, and why.
struct ticket_keys *tickets_map(int *fd, struct error *error);
// A new key in place of the oldest.
void tickets_rotate(struct ticket_keys *tickets);
