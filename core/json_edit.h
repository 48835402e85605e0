// SPDX-License-Identifier: Apache-2.0
// Edits of JSON texts: members and elements are removed, renamed, replaced, added and appended to by path. What no edit
// names keeps its bytes, and so its order, its digits and its spelling; only the containers on a path are looked into.
#pragma once
#include "slice.h"

struct bytes;

enum { JSON_PATH_MOST = 32 };

struct json_edits; // a list of edits with room for what it makes, used by one worker

struct json_edits *json_edits_new(void); // NULL: no memory
void json_edits_free(struct json_edits *edits);

// One more edit, which runs behind those before. step: enum json_step. `path` has `count` steps down from the value: a
// member's name; or without data an element: its number from 1 in `len`, 0 for all. JSON_ALLOW: the names that stay.
// `value`: JSON text, of RENAME the name in plain; all is copied. 0, ERROR_INVALID, ERROR_MEMORY.
int json_edits_add(struct json_edits *edits, int step, const struct bytes *path, uint32_t count, struct slice value);

// Has the edit with that number (from 0) another value, JSON text, which the caller keeps for the next run.
// ERROR_INVALID: there is none, or it renames.
int json_edits_value(struct json_edits *edits, uint32_t number, struct slice value);

// Runs them over a text that json_check_form has passed. 0 with the text, which lives until the next run; ERROR_MEMORY.
int json_edits_run(struct json_edits *edits, struct slice text, struct slice *out);
