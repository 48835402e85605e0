// SPDX-License-Identifier: Apache-2.0
// Listening sockets.
#include "listen.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "text.h"

enum { BACKLOG = 16384 }; // the kernel cuts it to net.core.somaxconn

const char *listen_kind_name(int32_t kind) {
  return kind == LISTEN_STATUS ? "status" : kind == LISTEN_STREAM ? "stream" : "proxy";
}

int listen_spec_parse(const char *text, enum listen_kind kind, struct listen_spec *spec, struct error *error) {
  *spec = (struct listen_spec){.kind = (int32_t)kind};
  text += strspn(text, " ");
  size_t len = strcspn(text, " ");
  const char *flags = text + len + strspn(text + len, " ");
  if (len == 0 || len >= sizeof spec->address || strlen(flags) >= sizeof spec->flags || !memchr(text, ':', len))
    return error_set(error, ERROR_INVALID, "not an address and port to listen on: \"%s\"", text);
  memcpy(spec->address, text, len);
  strcpy(spec->flags, flags);
  return 0;
}

// ---- One socket -------------------------------------------------------------------------------------------------

// Says which setting asked for the address: two of them have a default.
static int open_failed(const struct listen_spec *spec, struct error *error) {
  return error_system(error, "cannot listen on %s (gateway.%s_listen)", spec->address, listen_kind_name(spec->kind));
}

static bool flag_number(const char *flags, const char *name, int *out) {
  const char *at = strstr(flags, name);
  if (!at) return false;
  *out = atoi(at + strlen(name));
  return *out > 0;
}

static int address_resolve(const char *text, struct sockaddr_storage *out, socklen_t *len, struct error *error) {
  char host[LISTEN_ADDRESS_BYTES];
  const char *colon = strrchr(text, ':');
  size_t host_len = (size_t)(colon - text);
  bool bracketed = host_len >= 2 && text[0] == '[' && text[host_len - 1] == ']';
  snprintf(host, sizeof host, "%.*s", (int)(bracketed ? host_len - 2 : host_len), text + bracketed);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
  int failed = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
  if (failed) return error_set(error, ERROR_INVALID, "cannot listen on %s: %s", text, gai_strerror(failed));
  memcpy(out, found->ai_addr, found->ai_addrlen);
  *len = found->ai_addrlen;
  freeaddrinfo(found);
  return 0;
}

static void option_set(int fd, int level, int name) {
  int on = 1;
  setsockopt(fd, level, name, &on, sizeof on);
}

// SO_REUSEPORT lets two gateways of one user share a port in silence, each getting some of the connections. A bind
// without it tells whether anybody listens there.
static int port_is_free(const struct sockaddr_storage *address, socklen_t len) {
  int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  option_set(fd, SOL_SOCKET, SO_REUSEADDR);
  if (address->ss_family == AF_INET6) option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  int result = bind(fd, (const struct sockaddr *)address, len);
  int cause = errno;
  close(fd);
  errno = cause;
  return result;
}

static int tcp_open(const struct listen_spec *spec, const struct sockaddr_storage *address, socklen_t len,
                    struct error *error) {
  int backlog = BACKLOG;
  flag_number(spec->flags, "backlog=", &backlog);
  int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return open_failed(spec, error);
  option_set(fd, SOL_SOCKET, SO_REUSEADDR);
  option_set(fd, SOL_SOCKET, SO_REUSEPORT);
  option_set(fd, IPPROTO_TCP, TCP_NODELAY); // accepted sockets inherit it: one system call less for each
  if (address->ss_family == AF_INET6) option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  if (bind(fd, (const struct sockaddr *)address, len) == 0 && listen(fd, backlog) == 0) return fd;
  open_failed(spec, error);
  close(fd);
  return ERROR_SYSTEM;
}

// A socket that nobody listens on any more is left over from a gateway that was killed, and makes room. All else of that
// name is somebody's.
static int unix_make_room(const struct sockaddr_un *address) {
  struct stat found;
  if (lstat(address->sun_path, &found) < 0) return errno == ENOENT ? 0 : -1;
  errno = EEXIST;
  if (!S_ISSOCK(found.st_mode)) return -1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int refused = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED;
  close(fd);
  errno = EADDRINUSE;
  return refused ? unlink(address->sun_path) : -1;
}

static int unix_open(const struct listen_spec *spec, struct error *error) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = spec->address + strlen("unix:");
  if (strlen(path) >= sizeof address.sun_path)
    return error_set(error, ERROR_INVALID, "cannot listen on %s: the path is too long", spec->address);
  strcpy(address.sun_path, path);
  if (unix_make_room(&address) < 0) return open_failed(spec, error);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0) return fd;
  open_failed(spec, error);
  if (fd >= 0) close(fd);
  return ERROR_SYSTEM;
}

static bool is_unix(const struct listen_spec *spec) {
  return strncmp(spec->address, "unix:", 5) == 0;
}

static void address_text(int fd, char out[LISTEN_ADDRESS_BYTES]) {
  struct sockaddr_storage address;
  socklen_t len = sizeof address;
  char host[64], port[16];
  if (getsockname(fd, (struct sockaddr *)&address, &len) < 0) return;
  if (getnameinfo((struct sockaddr *)&address, len, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV))
    return;
  snprintf(out, LISTEN_ADDRESS_BYTES, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

// ---- The table --------------------------------------------------------------------------------------------------

static struct listen_entry *listener_find(const struct listeners *table, const struct listen_spec *spec,
                                          int32_t worker) {
  for (uint32_t i = 0; i < table->count; i++) {
    struct listen_entry *listener = &table->all[i];
    if (listener->worker == worker && strcmp(listener->spec.address, spec->address) == 0) return listener;
  }
  return NULL;
}

static bool holds_fd(const struct listeners *table, int fd) {
  for (uint32_t i = 0; i < table->count; i++)
    if (table->all[i].socket.fd == fd) return true;
  return false;
}

static void table_add(struct listeners *table, int fd, const struct listen_spec *spec, int32_t worker) {
  table->all = realloc(table->all, (table->count + 1) * sizeof *table->all);
  assert(table->all);
  struct listen_entry *listener = &table->all[table->count++];
  *listener = (struct listen_entry){.socket = {.fd = fd, .kind = spec->kind}, .spec = *spec, .worker = worker};
  memcpy(listener->socket.address, spec->address, sizeof spec->address);
  memcpy(listener->socket.flags, spec->flags, sizeof spec->flags);
  if (!is_unix(spec)) address_text(fd, listener->socket.address);
}

static int unix_add(struct listeners *next, const struct listeners *now, const struct listen_spec *spec,
                    struct error *error) {
  struct listen_entry *had = listener_find(now, spec, 0);
  int fd = had ? had->socket.fd : unix_open(spec, error);
  if (fd < 0) return fd;
  table_add(next, fd, spec, 0);
  return 0;
}

// Sockets of one address for all workers. With port 0 the first one gets a port and the others follow it.
static int tcp_add(struct listeners *next, const struct listeners *now, const struct listen_spec *spec, int32_t workers,
                   struct error *error) {
  struct sockaddr_storage address;
  socklen_t len;
  int failed = address_resolve(spec->address, &address, &len, error);
  if (failed) return failed;
  struct listen_entry *sibling = listener_find(now, spec, 1);
  if (!sibling && port_is_free(&address, len) < 0) return open_failed(spec, error);
  int bound = sibling ? sibling->socket.fd : -1;
  for (int32_t worker = 1; worker <= workers; worker++) {
    struct listen_entry *had = listener_find(now, spec, worker);
    if (bound >= 0) len = sizeof address;
    if (bound >= 0 && getsockname(bound, (struct sockaddr *)&address, &len) < 0) return open_failed(spec, error);
    int fd = had ? had->socket.fd : tcp_open(spec, &address, len, error);
    if (fd < 0) return fd;
    table_add(next, fd, spec, worker);
    bound = fd;
  }
  return 0;
}

int listeners_open(struct listeners *next, const struct listeners *now, const struct listen_spec *specs, uint32_t count,
                   int32_t workers, struct error *error) {
  *next = (struct listeners){0};
  for (uint32_t i = 0; i < count; i++) {
    int failed =
        is_unix(&specs[i]) ? unix_add(next, now, &specs[i], error) : tcp_add(next, now, &specs[i], workers, error);
    if (failed) {
      listeners_close(next, now);
      return failed;
    }
  }
  return 0;
}

void listeners_close(struct listeners *old, const struct listeners *kept) {
  for (uint32_t i = 0; i < old->count; i++) {
    int fd = old->all[i].socket.fd;
    if (!kept || !holds_fd(kept, fd)) close(fd);
  }
  free(old->all);
  *old = (struct listeners){0};
}

uint32_t listeners_of(const struct listeners *listeners, int32_t worker, struct listen_socket *out) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < listeners->count; i++) {
    const struct listen_entry *listener = &listeners->all[i];
    if (listener->worker == 0 || listener->worker == worker) out[count++] = listener->socket;
  }
  return count;
}

// ---- Upgrade ----------------------------------------------------------------------------------------------------

void listeners_export(const struct listeners *listeners, struct text *out) {
  for (uint32_t i = 0; i < listeners->count; i++) {
    const struct listen_entry *listener = &listeners->all[i];
    text_printf(out, "listen=%d %d %d %s %s\n", listener->socket.fd, listener->worker, listener->spec.kind,
                listener->spec.address, listener->spec.flags);
  }
}

int listeners_import(struct listeners *listeners, const char *line, struct error *error) {
  int fd, worker, kind, used = 0;
  struct listen_spec spec;
  if (sscanf(line, "%d %d %d %n", &fd, &worker, &kind, &used) < 3 || !used || fcntl(fd, F_GETFD) < 0)
    return error_set(error, ERROR_INVALID, "not an inherited socket: %s", line);
  enum listen_kind known = kind == LISTEN_STATUS || kind == LISTEN_STREAM ? (enum listen_kind)kind : LISTEN_PROXY;
  int failed = listen_spec_parse(line + used, known, &spec, error);
  if (failed) return failed;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  table_add(listeners, fd, &spec, worker);
  return 0;
}
