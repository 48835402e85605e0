// SPDX-License-Identifier: Apache-2.0
// The files by which a running gateway is found.
#include "statedir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

const char *statedir_path(const char *state_dir, const char *name, char out[STATEDIR_PATH]) {
  snprintf(out, STATEDIR_PATH, "%s/%s", state_dir, name);
  return out;
}

static int folders_make(const char *path, struct error *error) {
  char part[STATEDIR_PATH];
  if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
    return error_set(error, ERROR_INVALID, "state_dir is too long");
  for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(part, 0755);
    *slash = '/';
  }
  if (mkdir(part, 0755) < 0 && errno != EEXIST) return error_system(error, "cannot make state_dir %s", path);
  return 0;
}

static void pid_read(const char *state_dir, char out[16]) {
  char path[STATEDIR_PATH];
  int fd = open(statedir_path(state_dir, "sluice.pid", path), O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, out, 15);
  if (fd >= 0) close(fd);
  out[n < 0 ? 0 : n] = 0;
  out[strcspn(out, "\n")] = 0;
}

int statedir_lock(const char *state_dir, struct error *error) {
  char path[STATEDIR_PATH], pid[16];
  int failed = folders_make(state_dir, error);
  if (failed) return failed;
  int fd = open(statedir_path(state_dir, "lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return error_system(error, "cannot open %s", path);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  close(fd);
  pid_read(state_dir, pid);
  return error_set(error, ERROR_INVALID, "a gateway runs already with state_dir %s (pid %s)", state_dir, pid);
}

void statedir_forget_snapshots(const char *snapshot, int64_t revision) {
  char folder[STATEDIR_PATH];
  snprintf(folder, sizeof folder, "%s", snapshot);
  char *slash = strrchr(folder, '/');
  if (!slash) return;
  *slash = 0;
  DIR *dir = opendir(folder);
  if (!dir) return;
  for (struct dirent *entry; (entry = readdir(dir));) {
    char *end;
    long long number = strtoll(entry->d_name, &end, 10);
    if (end != entry->d_name && *end == 0 && number < revision) unlinkat(dirfd(dir), entry->d_name, 0);
  }
  closedir(dir);
}

int statedir_write_pid(const char *state_dir, int32_t pid, struct error *error) {
  char path[STATEDIR_PATH], fresh[STATEDIR_PATH];
  statedir_path(state_dir, "sluice.pid", path);
  statedir_path(state_dir, "sluice.pid.new", fresh);
  FILE *file = fopen(fresh, "we");
  if (!file) return error_system(error, "cannot write %s", path);
  fprintf(file, "%d\n", pid);
  if (fclose(file) != 0 || rename(fresh, path) < 0) return error_system(error, "cannot write %s", path);
  return 0;
}

int statedir_log_to(const char *path, struct error *error) {
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return error_system(error, "cannot open the log %s", path);
  dup2(fd, STDOUT_FILENO);
  dup2(fd, STDERR_FILENO);
  close(fd);
  return 0;
}
