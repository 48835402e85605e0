// SPDX-License-Identifier: Apache-2.0
// What the crypto modules share, with OpenSSL's types: for crypto*.c alone.
#pragma once
#include <openssl/evp.h>

#include "bridge.h"
#include "error.h"

const EVP_MD *crypto_method(enum crypto_digest digest); // NULL: there is none
// Fills `error` with OpenSSL's reason behind `what`, and forgets it there. ERROR_INVALID.
int crypto_explain(struct error *error, const char *what);
