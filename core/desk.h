// SPDX-License-Identifier: Apache-2.0
// The master's control socket: takes commands from `sluice status` and its like, and keeps who waits for an answer.
#pragma once
#include <stdbool.h>

#include "error.h"
#include "loop.h"

struct desk;

enum desk_command { DESK_STATUS, DESK_TOP, DESK_PROFILE, DESK_RELOAD, DESK_UPGRADE, DESK_QUIT, DESK_STOP, DESK_COUNT };

// Opens the socket at `path`. A client sends the command's name as one line and then waits.
struct desk *desk_open(struct loop *loop, const char *path,
                       void (*on_command)(void *context, enum desk_command command), void *context,
                       struct error *error);

// Work on this command begins: those who wait for it now get the answer; who comes later waits for the next.
void desk_begin(struct desk *desk, enum desk_command command);
// True when somebody waits for whom no work has begun.
bool desk_waits(const struct desk *desk, enum desk_command command);
// Sends the answer to those of desk_begin. They are let go, but for `quit` and `stop`: these see the end of the process.
void desk_answer(struct desk *desk, enum desk_command command, const char *json);

void desk_close(struct desk *desk);
