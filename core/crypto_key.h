// SPDX-License-Identifier: Apache-2.0
// Keys, parsed once, and what they sign and verify. A key is public, or a pair with its private half; it never changes.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "slice.h"

struct crypto_key;

// A public key ("PUBLIC KEY", or RSA's own form), that of a certificate, or a private key, as PEM. NULL: no key that can
// be used; `error` says why.
struct crypto_key *crypto_key_from_pem(struct slice pem, struct error *error);
// The public key of a certificate as DER (a JWK's x5c).
struct crypto_key *crypto_key_from_certificate(struct slice der, struct error *error);
// From the numbers of a JWK (RFC 7518, 6; RFC 8037): big-endian bytes.
struct crypto_key *crypto_key_from_jwk(const struct jwk_parts *parts, struct error *error);
void crypto_key_free(struct crypto_key *key); // NULL too

void crypto_key_tell(const struct crypto_key *key, struct key_info *out);
bool crypto_key_same(const struct crypto_key *a, const struct crypto_key *b); // the public halves

// Bytes written to `out` (CRYPTO_SIGNATURE_MAX), or ERROR_INVALID: the key is of another kind, or public.
int crypto_key_sign(const struct crypto_key *key, enum crypto_signature kind, enum crypto_digest digest,
                    struct slice data, uint8_t *out, struct error *error);
// 1: the signature is good, 0: it is not, ERROR_INVALID: the key is of another kind.
int crypto_key_verify(const struct crypto_key *key, enum crypto_signature kind, enum crypto_digest digest,
                      struct slice data, struct slice signature);
