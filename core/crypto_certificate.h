// SPDX-License-Identifier: Apache-2.0
// Clients' certificates: what one says, whether authorities vouch for it, and whether it has been revoked since (OCSP,
// RFC 6960; lists, RFC 5280). Results are told as fields "name:length:value," one behind the other.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "slice.h"

// Authorities that certificates are verified by, read once.
struct crypto_authorities;

// From PEM, one certificate behind the other. `partial`: each of them ends a chain, not only those that sign themselves.
struct crypto_authorities *crypto_authorities_new(struct slice pem, bool partial, struct error *error);
void crypto_authorities_free(struct crypto_authorities *authorities);

// Fields of the first certificate of a PEM: subject, cn, issuer, serial, not_before, not_after (seconds since 1970) and,
// each as often as there are some, dns, email, uri, ip (names) and ocsp, crl (URLs). Bytes written, or ERROR_INVALID; a
// name with a NUL in it is left out.
int crypto_certificate_tell(struct slice pem, char *out, uint32_t room, struct error *error);
// Whether the first certificate of a PEM (those behind it may help) is a client's that the authorities vouch for at
// `now_s`. Fields: issuer (PEM of the certificate that signed it), authority (which of those given ends the chain, from
// 1). Bytes written, or ERROR_INVALID: `error` says why not.
int crypto_certificate_verify(const struct crypto_authorities *authorities, struct slice pem, int64_t now_s, char *out,
                              uint32_t room, struct error *error);

// A request for the state of a certificate, as DER. Bytes written, or ERROR_INVALID.
int crypto_ocsp_request(struct slice pem, struct slice issuer_pem, char *out, uint32_t room, struct error *error);
// What the answer to that request says. `*until_s` gets the time until which it holds, 0: it does not say.
enum crypto_revocation crypto_ocsp_read(struct slice request, struct slice response, struct slice pem,
                                        struct slice issuer_pem, int64_t now_s, int64_t *until_s, struct error *error);
// What a list (DER or PEM) of that issuer says.
enum crypto_revocation crypto_crl_read(struct slice list, struct slice pem, struct slice issuer_pem, int64_t now_s,
                                       int64_t *until_s, struct error *error);
