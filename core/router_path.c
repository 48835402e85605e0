// SPDX-License-Identifier: Apache-2.0
// The path that goes upstream: the service's path joined with what is left of the request's, as Kong joins them.
#include "router.h"

struct writer {
  char *out;
  size_t room, len; // `len` grows past `room`: then nothing was lost but the answer
};

static void write_text(struct writer *writer, struct slice text) {
  if (writer->len + text.len <= writer->room) memcpy(writer->out + writer->len, text.data, text.len);
  writer->len += text.len;
}

static struct slice slice_from(struct slice text, uint32_t from) {
  return from < text.len ? (struct slice){text.data + from, text.len - from} : (struct slice){"", 0};
}

static struct slice without_last(struct slice text) {
  return (struct slice){text.data, text.len - 1};
}

static bool starts_with_slash(struct slice text) {
  return text.len > 0 && text.data[0] == '/';
}

static bool ends_with_slash(struct slice text) {
  return text.len > 0 && text.data[text.len - 1] == '/';
}

// A prefix may end inside a segment: of "/a.." under "/a" the dots are left, and would climb out of the service's path.
static struct slice without_dots(struct slice rest) {
  uint32_t dots = 0;
  while (dots < rest.len && dots < 2 && rest.data[dots] == '.') dots++;
  if (dots == 0 || (dots < rest.len && rest.data[dots] != '/')) return rest;
  return slice_from(rest, dots + 1);
}

static void join_v1(struct writer *writer, struct slice base, struct slice rest) {
  write_text(writer, ends_with_slash(base) && starts_with_slash(rest) ? without_last(base) : base);
  write_text(writer, rest);
}

// Nothing is left of the path: whether the answer ends in a slash follows the request.
static void join_nothing(struct writer *writer, struct slice base, struct slice path) {
  bool slash = ends_with_slash(path) && path.len > 1;
  if (ends_with_slash(base) && base.len > 1 && !ends_with_slash(path)) base = without_last(base);
  write_text(writer, base);
  if (slash && !ends_with_slash(base)) write_text(writer, SLICE("/"));
}

static void join_v0(struct writer *writer, struct slice base, struct slice rest) {
  write_text(writer, ends_with_slash(base) && starts_with_slash(rest) ? without_last(base) : base);
  if (!ends_with_slash(base) && !starts_with_slash(rest)) write_text(writer, SLICE("/"));
  write_text(writer, rest);
}

static void join_whole(struct writer *writer, struct slice base, struct slice path) {
  write_text(writer, base);
  if (ends_with_slash(base)) {
    write_text(writer, slice_from(path, 1));
  } else if (path.len > 1) {
    write_text(writer, path);
  }
}

int router_upstream_path(struct slice service_path, struct slice path, uint32_t matched_len, bool strip, bool v1,
                         char *out, size_t room) {
  struct writer writer = {.out = out, .room = room};
  struct slice base = service_path.len ? service_path : SLICE("/");
  // Without a path of the route the leading slash counts as matched.
  struct slice rest = without_dots(slice_from(path, strip && matched_len ? matched_len : 1));
  if (v1) {
    join_v1(&writer, base, strip ? rest : slice_from(path, 1));
  } else if (!strip) {
    join_whole(&writer, base, path);
  } else if (rest.len == 0) {
    join_nothing(&writer, base, path);
  } else {
    join_v0(&writer, base, rest);
  }
  return writer.len <= room ? (int)writer.len : ERROR_MEMORY;
}
