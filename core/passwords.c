// SPDX-License-Identifier: Apache-2.0
// Passwords on a helper thread. What an attacker's guesses may take is one thread and 64 places, never the loop.
#include "passwords.h"

#include <crypt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "crypto.h"
#include "errands.h"

enum { NICENESS = 10 };

struct check {
  struct errand errand; // first: the one is the other
  struct passwords *passwords;
  double number;
  bool fits;
  char phrase[PASSWORDS_PHRASE_MAX + 1];
  char hash[PASSWORDS_HASH_MAX + 1];
  struct crypt_data data;
};

struct passwords {
  struct errands *errands;
  void (*on_done)(void *owner, double number, bool fits);
  void *owner;
};

static void check_run(struct errand *errand) {
  struct check *check = (struct check *)errand;
  // Of this thread alone, on Linux. A refusal costs the loop some of its share, and nothing else.
  (void)setpriority(PRIO_PROCESS, 0, NICENESS);
  const char *made = crypt_rn(check->phrase, check->hash, &check->data, sizeof check->data);
  check->fits = made && crypto_equal(slice_of(made), slice_of(check->hash));
  explicit_bzero(check->phrase, sizeof check->phrase);
  explicit_bzero(&check->data, sizeof check->data);
}

static void check_on_done(struct errand *errand) {
  struct check *check = (struct check *)errand;
  struct passwords *passwords = check->passwords;
  double number = check->number;
  bool fits = check->fits;
  free(check);
  if (passwords->on_done) passwords->on_done(passwords->owner, number, fits);
}

struct passwords *passwords_new(struct loop *loop, void (*on_done)(void *owner, double number, bool fits),
                                void *owner) {
  struct passwords *passwords = calloc(1, sizeof *passwords);
  if (!passwords) return NULL;
  *passwords = (struct passwords){.errands = errands_new(loop, 1), .on_done = on_done, .owner = owner};
  if (passwords->errands) return passwords;
  free(passwords);
  return NULL;
}

void passwords_free(struct passwords *passwords) {
  passwords->on_done = NULL;
  errands_free(passwords->errands);
  free(passwords);
}

// A zero byte would end the text for libcrypt: what stands behind it would not count.
static bool is_text(struct slice text, uint32_t most) {
  return text.len > 0 && text.len <= most && !memchr(text.data, 0, text.len);
}

int passwords_check(struct passwords *passwords, struct slice phrase, struct slice hash, double number) {
  if (!is_text(phrase, PASSWORDS_PHRASE_MAX) || !is_text(hash, PASSWORDS_HASH_MAX)) return PASSWORDS_INVALID;
  if (errands_pending(passwords->errands) >= PASSWORDS_WAITING_MAX) return PASSWORDS_FULL;
  struct check *check = calloc(1, sizeof *check);
  if (!check) return PASSWORDS_FULL;
  check->errand = (struct errand){.run = check_run, .on_done = check_on_done};
  check->passwords = passwords;
  check->number = number;
  memcpy(check->phrase, phrase.data, phrase.len);
  memcpy(check->hash, hash.data, hash.len);
  errands_submit(passwords->errands, &check->errand);
  return PASSWORDS_OK;
}

bool passwords_are_checked(const struct passwords *passwords) {
  return errands_pending(passwords->errands) > 0;
}
