// SPDX-License-Identifier: Apache-2.0
// Three libraries behind one table: in goes a piece, out come blocks of at most OUT_BYTES.
#include "coder.h"

#include <brotli/encode.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "error.h"

enum {
  OUT_BYTES = 16 * 1024,
  WINDOW_LOG_MOST = 18, // 256 KB: what a stream may look back, and most of its memory
  WINDOW_LOG_LEAST = 10,
  GZIP_MEMORY = 8, // zlib's default
  GZIP_WINDOW_MOST = 15,
  GZIP_FORMAT = 16 // added to the window it means gzip's head and tail
};

// One step over `*in`, which it moves on: 1: there is more to come out, 0: not until more goes in, negative: failed.
typedef int coder_work(struct coder *coder, struct slice *in, enum coder_step step, char *out, uint32_t *len);

struct coder {
  enum coding coding;
  bool ended;
  union {
    z_stream gzip;
    BrotliEncoderState *brotli;
    ZSTD_CCtx *zstd;
  };
  char out[OUT_BYTES];
};

// The least window that has room for so many bytes.
static int window_for(int64_t length, int most) {
  int log = WINDOW_LOG_LEAST;
  while (log < most && (length < 0 || (int64_t)1 << log < length)) log++;
  return log;
}

// ---- gzip ----

static bool gzip_open(struct coder *coder, int level, int64_t length) {
  int window = window_for(length, GZIP_WINDOW_MOST);
  return level >= 1 && level <= 9 &&
         deflateInit2(&coder->gzip, level, Z_DEFLATED, window + GZIP_FORMAT, GZIP_MEMORY, Z_DEFAULT_STRATEGY) == Z_OK;
}

static int gzip_work(struct coder *coder, struct slice *in, enum coder_step step, char *out, uint32_t *len) {
  static const int flush[] = {[CODER_MORE] = Z_NO_FLUSH, [CODER_FLUSH] = Z_SYNC_FLUSH, [CODER_END] = Z_FINISH};
  z_stream *gzip = &coder->gzip;
  gzip->next_in = (Bytef *)(uintptr_t)in->data;
  gzip->avail_in = in->len;
  gzip->next_out = (Bytef *)out;
  gzip->avail_out = OUT_BYTES;
  int result = deflate(gzip, flush[step]);
  *len = OUT_BYTES - gzip->avail_out;
  *in = (struct slice){in->data + (in->len - gzip->avail_in), gzip->avail_in};
  if (result == Z_STREAM_ERROR) return ERROR_MEMORY;
  return gzip->avail_out == 0 || (step == CODER_END && result != Z_STREAM_END);
}

// ---- brotli ----

static bool brotli_open(struct coder *coder, int level, int64_t length) {
  if (level < BROTLI_MIN_QUALITY || level > BROTLI_MAX_QUALITY) return false;
  coder->brotli = BrotliEncoderCreateInstance(NULL, NULL, NULL);
  if (!coder->brotli) return false;
  BrotliEncoderSetParameter(coder->brotli, BROTLI_PARAM_QUALITY, (uint32_t)level);
  BrotliEncoderSetParameter(coder->brotli, BROTLI_PARAM_LGWIN, (uint32_t)window_for(length, WINDOW_LOG_MOST));
  if (length > 0 && length < INT32_MAX)
    BrotliEncoderSetParameter(coder->brotli, BROTLI_PARAM_SIZE_HINT, (uint32_t)length);
  return true;
}

static int brotli_work(struct coder *coder, struct slice *in, enum coder_step step, char *out, uint32_t *len) {
  static const BrotliEncoderOperation operations[] = {[CODER_MORE] = BROTLI_OPERATION_PROCESS,
                                                      [CODER_FLUSH] = BROTLI_OPERATION_FLUSH,
                                                      [CODER_END] = BROTLI_OPERATION_FINISH};
  size_t in_left = in->len, out_left = OUT_BYTES;
  const uint8_t *from = (const uint8_t *)in->data;
  uint8_t *to = (uint8_t *)out;
  if (!BrotliEncoderCompressStream(coder->brotli, operations[step], &in_left, &from, &out_left, &to, NULL))
    return ERROR_MEMORY;
  *len = (uint32_t)(OUT_BYTES - out_left);
  *in = (struct slice){(const char *)from, (uint32_t)in_left};
  return BrotliEncoderHasMoreOutput(coder->brotli) || in_left > 0 ||
         (step == CODER_END && !BrotliEncoderIsFinished(coder->brotli));
}

// ---- zstd ----

static bool zstd_open(struct coder *coder, int level, int64_t length) {
  if (level < 1 || level > 19) return false;
  coder->zstd = ZSTD_createCCtx();
  if (!coder->zstd) return false;
  ZSTD_CCtx_setParameter(coder->zstd, ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setParameter(coder->zstd, ZSTD_c_windowLog, window_for(length, WINDOW_LOG_MOST));
  return true;
}

static int zstd_work(struct coder *coder, struct slice *in, enum coder_step step, char *out, uint32_t *len) {
  static const ZSTD_EndDirective directives[] = {
      [CODER_MORE] = ZSTD_e_continue, [CODER_FLUSH] = ZSTD_e_flush, [CODER_END] = ZSTD_e_end};
  ZSTD_inBuffer from = {in->data, in->len, 0};
  ZSTD_outBuffer to = {out, OUT_BYTES, 0};
  size_t left = ZSTD_compressStream2(coder->zstd, &to, &from, directives[step]);
  if (ZSTD_isError(left)) return ERROR_MEMORY;
  *len = (uint32_t)to.pos;
  *in = (struct slice){in->data + from.pos, (uint32_t)(in->len - from.pos)};
  return step == CODER_MORE ? in->len > 0 : left > 0;
}

// ---- All ----

struct coder *coder_new(enum coding coding, int level, int64_t length) {
  struct coder *coder = calloc(1, sizeof *coder);
  if (!coder) return NULL;
  coder->coding = coding;
  bool open = false;
  if (coding == CODING_GZIP) open = gzip_open(coder, level, length);
  if (coding == CODING_BROTLI) open = brotli_open(coder, level, length);
  if (coding == CODING_ZSTD) open = zstd_open(coder, level, length);
  if (open) return coder;
  free(coder);
  return NULL;
}

void coder_free(void *what) {
  struct coder *coder = what;
  if (coder->coding == CODING_GZIP) deflateEnd(&coder->gzip);
  if (coder->coding == CODING_BROTLI) BrotliEncoderDestroyInstance(coder->brotli);
  if (coder->coding == CODING_ZSTD) ZSTD_freeCCtx(coder->zstd);
  free(coder);
}

int coder_feed(struct coder *coder, struct slice in, enum coder_step step, coder_put *put, void *to) {
  static coder_work *const work[CODING_COUNT] = {
      [CODING_GZIP] = gzip_work, [CODING_BROTLI] = brotli_work, [CODING_ZSTD] = zstd_work};
  if (coder->ended || (step == CODER_MORE && in.len == 0)) return 0;
  coder->ended = step == CODER_END;
  int more = 1;
  while (more > 0) {
    uint32_t len = 0;
    more = work[coder->coding](coder, &in, step, coder->out, &len);
    if (more >= 0 && len > 0) put(to, coder->out, len);
  }
  return more;
}
