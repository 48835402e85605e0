// SPDX-License-Identifier: Apache-2.0
// Whether a text is JSON (RFC 8259, UTF-8), and not nested too deeply: for libraries that read more than that, or that
// recurse. Reads once, holds one bit a level.
#pragma once
#include "error.h"
#include "slice.h"

enum { JSON_DEPTH_MOST = 512 };

// 0, or ERROR_INVALID and what is wrong at which byte. `depth` levels of arrays and objects may stand in each other, at
// most JSON_DEPTH_MOST.
int json_check(struct slice text, uint32_t depth, struct error *error);
// The same, but for the encoding: bytes beyond ASCII may stand in any order, for what passes them on as they are.
int json_check_form(struct slice text, uint32_t depth, struct error *error);
