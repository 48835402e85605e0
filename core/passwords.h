// SPDX-License-Identifier: Apache-2.0
// Passwords against hashes as of crypt(5), which take 20 ms and 16 MB by intent: on one helper thread a worker, that
// gives way to the loop, with a bounded line before it.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "slice.h"

struct passwords;

enum passwords_status {
  PASSWORDS_OK = 0,
  PASSWORDS_INVALID = -2, // no password or no hash: too long, or with a zero byte in it
  PASSWORDS_FULL = -3     // too many wait already
};

enum { PASSWORDS_PHRASE_MAX = 511, PASSWORDS_HASH_MAX = 383, PASSWORDS_WAITING_MAX = 64 };

// `on_done` is called on the loop, with the number that was given and whether the password is the one of the hash.
struct passwords *passwords_new(struct loop *loop, void (*on_done)(void *owner, double number, bool fits), void *owner);
// Waits for those under way; their on_done is not called any more.
void passwords_free(struct passwords *passwords);
// Copies both, and wipes the password's copy when it has been used.
int passwords_check(struct passwords *passwords, struct slice phrase, struct slice hash, double number);
// The thread is at work: the loop will hear of it. For the spec kit, which waits for nothing else.
bool passwords_are_checked(const struct passwords *passwords);
