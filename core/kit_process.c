// SPDX-License-Identifier: Apache-2.0
// The kit's end of a gateway that is a process of its own: real sockets on 127.0.0.1, and the process.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit_parts.h"

#include "control.h"

// Ports that the kernel does not give to outgoing connections.
enum { BACKLOG = 128, FIRST_PORT = 10000, PORTS = 20000, LOG_MODE = 0644 };

struct kit *kit_outside(void) {
  return kit_empty();
}

// ---- Sockets -----------------------------------------------------------------------------------------------------------

static struct sockaddr_in loopback(uint32_t port) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return name;
}

// Bound to a port (0: any), or negative.
static int tcp_socket(uint32_t port, uint32_t *bound) {
  struct sockaddr_in name = loopback(port);
  socklen_t len = sizeof name;
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fd;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) {
    close(fd);
    return -1;
  }
  getsockname(fd, (struct sockaddr *)&name, &len);
  *bound = ntohs(name.sin_port);
  return fd;
}

// What was written must be on its way when the kit asks whether all is quiet.
static void send_at_once(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int local_socket(const char *path) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && bind(fd, (const struct sockaddr *)&name, sizeof name) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

int kit_door(struct kit *kit, const char *address, uint32_t *port) {
  if (kit->door_count == KIT_DOORS) return KIT_FAILED;
  bool local = strncmp(address, "unix:", 5) == 0;
  int fd = local ? local_socket(address + 5) : tcp_socket(0, port);
  if (fd < 0) return KIT_FAILED;
  if (listen(fd, BACKLOG) < 0) {
    close(fd);
    return KIT_FAILED;
  }
  kit->doors[kit->door_count] = fd;
  return (int)kit->door_count++;
}

int kit_door_accept(struct kit *kit, int door, uint32_t *from_port) {
  struct sockaddr_storage from = {0};
  socklen_t len = sizeof from;
  if (door < 0 || (uint32_t)door >= kit->door_count) return KIT_FAILED;
  int fd = accept4(kit->doors[door], (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return KIT_AGAIN;
  *from_port = from.ss_family == AF_INET ? address_port((const struct sockaddr *)&from) : 0;
  if (from.ss_family == AF_INET) send_at_once(fd);
  struct kit_peer *peer = peer_new(kit, fd);
  if (!peer) return KIT_FAILED;
  peer->is_service = from.ss_family == AF_INET;
  peer->greeted = !peer->is_service;
  return peer->arrival.peer;
}

int kit_socket(struct kit *kit, uint32_t *port) {
  int fd = tcp_socket(0, port);
  struct kit_peer *peer = fd >= 0 ? peer_new(kit, fd) : NULL;
  if (!peer) return KIT_FAILED;
  peer->greeted = true;
  send_at_once(fd);
  return peer->arrival.peer;
}

// A connection on this host is there at once, or waits in the backlog.
int kit_connect(struct kit *kit, int number, uint32_t port, const char *server_name) {
  struct kit_peer *peer = peer_find(kit, number);
  struct sockaddr_in name = loopback(port);
  if (!peer) return KIT_FAILED;
  if (connect(peer->fd, (const struct sockaddr *)&name, sizeof name) < 0 && errno != EINPROGRESS) return KIT_FAILED;
  return server_name ? peer_start_tls(kit, peer, server_name) : 0;
}

bool kit_await(struct kit *kit, int number, int ms) {
  const struct kit_peer *peer = peer_find(kit, number);
  struct pollfd look = {.fd = peer ? peer->fd : -1, .events = POLLIN};
  return poll(&look, 1, ms) > 0;
}

uint32_t kit_free_port(uint32_t after) {
  uint32_t start = after ? after + 1 - FIRST_PORT : (uint32_t)getpid() * 97, bound;
  for (uint32_t i = 0; i < PORTS; i++) {
    int fd = tcp_socket(FIRST_PORT + (start + i) % PORTS, &bound);
    if (fd < 0) continue;
    bool free = listen(fd, 1) == 0;
    close(fd);
    if (free) return bound;
  }
  return 0;
}

// ---- The process -------------------------------------------------------------------------------------------------------

static void become(const char *const *arguments, const char *const *environment, const char *folder, const char *log) {
  int null = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, LOG_MODE);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  signal(SIGPIPE, SIG_DFL);
  if (null < 0 || out < 0 || chdir(folder) < 0) _exit(127);
  dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  for (; *environment; environment++) putenv((char *)(uintptr_t)*environment); // one without "=" is removed
  execv(arguments[0], (char *const *)(uintptr_t)arguments);
  fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
  _exit(127);
}

int kit_spawn(const char *const *arguments, const char *const *environment, const char *folder, const char *log) {
  pid_t pid = fork();
  if (pid == 0) become(arguments, environment, folder, log);
  return pid > 0 ? pid : KIT_FAILED;
}

int kit_reap(int pid) {
  int status;
  pid_t ended = waitpid(pid, &status, WNOHANG);
  if (ended == 0) return KIT_AGAIN;
  if (ended < 0) return KIT_FAILED;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void kit_kill(int pid, bool at_once) {
  kill(pid, at_once ? SIGKILL : SIGTERM);
}

int64_t kit_ask(const char *path, const char *line, int ms, char *out, uint32_t room) {
  struct text answer = {0};
  struct error error = {0};
  int result = control_ask(path, line, ms, &answer, &error);
  snprintf(out, room, "%s", result < 0 ? error.text : answer.data ? answer.data : "");
  text_free(&answer);
  return result < 0 ? KIT_FAILED : (int64_t)strlen(out);
}
