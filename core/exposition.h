// SPDX-License-Identifier: Apache-2.0
// What the named counters of metrics say, as Prometheus' text format (version 0.0.4) and one by one. A named counter is a
// cell of a series, and its name says all that its text needs:
//
//   m SEP kind SEP scale SEP family SEP labels SEP extra       SEP is the byte 1
//
//   kind   c counter, g gauge, x gauge that is the highest of its cells, h histogram
//   scale  how many of what the cell counts make one
//   extra  of a histogram: the upper bound of a bucket, or "sum"; of a gauge: the worker
//
// Names never end, so each is taken apart once; from then on only numbers are read. Nothing here is Lua's: ten thousand
// series in its tables are what its collector goes through in one step.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "slice.h"

struct counters;
struct exposition;

enum exposition_status {
  EXPOSITION_OK = 0,
  EXPOSITION_MORE = 1,   // call again
  EXPOSITION_MEMORY = -1 // what was met is looked for again next time
};

struct exposition_family {
  struct slice name;
  char kind;
  uint32_t series;    // how many
  uint32_t first_row; // of its series; 0: none
};

struct exposition_series {
  struct slice labels; // a="b",c="d", escaped
  double value;        // of a histogram: the sum
  uint32_t next_row;   // of the family's next series; 0: none
};

struct exposition *exposition_new(struct counters *counters); // NULL: no memory
void exposition_free(struct exposition *exposition);

// Takes in the cells that came since the last look, at most `most` places of the table at a time, for it is large.
int exposition_look(struct exposition *exposition, uint32_t most);
// Families in the order in which they were met. False: there are not so many. One name may stand for several kinds.
bool exposition_family(const struct exposition *exposition, uint32_t index, struct exposition_family *out);
// False: no such row.
bool exposition_series(const struct exposition *exposition, uint32_t row, struct exposition_series *out);
// Bucket `index` (from 0) of a histogram's series, in the order of the bounds; `*count` is its own, without those below.
// False: there are not so many.
bool exposition_bucket(const struct exposition *exposition, uint32_t row, uint32_t index, double *bound,
                       uint64_t *count);
// The lines of at most `most` series from `*row` on, which becomes that of the next, 0 at the end. They are the caller's
// to read until the next call. Data is NULL when there is no memory.
struct slice exposition_text(struct exposition *exposition, uint32_t *row, uint32_t most);
