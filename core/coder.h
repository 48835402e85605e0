// SPDX-License-Identifier: Apache-2.0
// Content codings (RFC 9110 8.4.1) of what is sent: gzip, br (RFC 7932) and zstd (RFC 8878), in a stream.
#pragma once
#include <stdint.h>

#include "slice.h"

enum coding { CODING_GZIP, CODING_BROTLI, CODING_ZSTD, CODING_COUNT };

enum coder_step {
  CODER_MORE,  // what comes out now is up to the coder
  CODER_FLUSH, // all that went in comes out, so that it can be read
  CODER_END    // and nothing follows
};

// Takes bytes that live until it returns.
typedef void coder_put(void *to, const char *data, uint32_t len);

struct coder;

// level: 1 to 9 of gzip, 0 to 11 of brotli, 1 to 19 of zstd. `length`: bytes that will go in, -1: unknown; a coder for
// few takes little memory. NULL: no memory, or no such level.
struct coder *coder_new(enum coding coding, int level, int64_t length);
void coder_free(void *coder);
// 0, or ERROR_MEMORY; after CODER_END it does nothing.
int coder_feed(struct coder *coder, struct slice in, enum coder_step step, coder_put *put, void *to);
