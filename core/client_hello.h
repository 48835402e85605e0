// SPDX-License-Identifier: Apache-2.0
// Looks into the first message of a TLS client without answering it: which server name it asks for. For routes that
// pass TLS through, where the gateway has no certificate and must not touch a byte.
#pragma once
#include <stdint.h>

enum {
  CLIENT_HELLO_MOST = 16384, // bytes, records' headers included, that are waited for
  CLIENT_HELLO_NAME = 256
};

enum client_hello_result {
  CLIENT_HELLO_WHOLE, // `sni` holds the name, empty when the client sent none
  CLIENT_HELLO_MORE,  // what has come is the beginning of one
  CLIENT_HELLO_BAD    // no TLS, or not what a client may begin with
};

struct client_hello {
  char sni[CLIENT_HELLO_NAME]; // lower case, without a dot at its end, ended by zero
  uint32_t sni_len;
};

enum client_hello_result client_hello_read(const char *data, uint32_t len, struct client_hello *out);
