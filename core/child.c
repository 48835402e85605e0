// SPDX-License-Identifier: Apache-2.0
// What every child of the master does first.
#include "child.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void signals_reset(void) {
  static const int masters[] = {SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
  sigset_t none;
  for (size_t i = 0; i < sizeof masters / sizeof *masters; i++) signal(masters[i], SIG_IGN);
  signal(SIGTERM, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

// Closes what lies between the kept ones, in rising order.
static void descriptors_close(const int *keep, uint32_t count) {
  int from = STDERR_FILENO + 1;
  for (;;) {
    int next = -1;
    for (uint32_t i = 0; i < count; i++)
      if (keep[i] >= from && (next < 0 || keep[i] < next)) next = keep[i];
    if (next < 0) break;
    if (next > from) close_range((unsigned)from, (unsigned)next - 1, 0);
    from = next + 1;
  }
  close_range((unsigned)from, ~0U, 0);
}

pid_t child_fork(const int *keep, uint32_t count) {
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0); // it died in between
  signals_reset();
  descriptors_close(keep, count);
  return 0;
}

const char *child_end(int status, char *out, uint32_t size) {
  if (WIFSIGNALED(status))
    snprintf(out, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
  else
    snprintf(out, size, "exited with code %d", WEXITSTATUS(status));
  return out;
}
