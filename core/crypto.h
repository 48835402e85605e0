// SPDX-License-Identifier: Apache-2.0
// Digests, codes, encodings and sealed text over OpenSSL, in the caller's buffers. Nothing keeps state.
// Signatures are in crypto_key.h.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "slice.h"

// "sha256" to CRYPTO_SHA256; -1: none of them.
int crypto_digest_parse(struct slice name);
// Both give the number of bytes written (up to CRYPTO_DIGEST_MAX), or ERROR_INVALID for no such digest.
int crypto_digest(enum crypto_digest digest, struct slice data, uint8_t *out);
int crypto_hmac(enum crypto_digest digest, struct slice key, struct slice data, uint8_t *out);

// How many bytes encoding `len` bytes gives, and how many decoding gives at most.
uint32_t crypto_encoded_len(enum crypto_encoding encoding, uint32_t len);
uint32_t crypto_decoded_len(enum crypto_encoding encoding, uint32_t len);
// Bytes written; `out` has the room that the functions above say.
uint32_t crypto_encode(enum crypto_encoding encoding, struct slice data, char *out);
// Bytes written, or ERROR_INVALID: strict alphabet and length; padding may be left out of base64url only, where it may
// also stand.
int64_t crypto_decode(enum crypto_encoding encoding, struct slice text, char *out);

// Cryptographic random bytes. 0, or ERROR_SYSTEM.
int crypto_random(void *out, uint32_t len);
// In a time that depends on the lengths only.
bool crypto_equal(struct slice a, struct slice b);

// AES-GCM with a key of 16, 24 or 32 bytes and an IV of CRYPTO_GCM_IV bytes, never used twice with a key. The tag
// follows the sealed text: `out` has room for CRYPTO_GCM_TAG bytes more than the text. Bytes written, or negative.
int64_t crypto_seal(struct slice key, struct slice iv, struct slice data, struct slice associated, uint8_t *out,
                    struct error *error);
// The other way. ERROR_INVALID: it was changed, or sealed with another key.
int64_t crypto_open(struct slice key, struct slice iv, struct slice sealed, struct slice associated, uint8_t *out,
                    struct error *error);

// scrypt (RFC 7914): n is a power of two. 0, or a negative error. Slow by intent: not for the loop of a busy worker.
int crypto_scrypt(struct slice password, struct slice salt, uint64_t n, uint32_t r, uint32_t p, uint8_t *out,
                  uint32_t len, struct error *error);
