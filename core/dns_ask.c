// SPDX-License-Identifier: Apache-2.0
// Where answers come from: the hosts file, then the servers through c-ares, whose sockets and time-outs hang on the loop.
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <assert.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dns_parts.h"

uint8_t dns_parse_literal(const char *text, struct dns_address *out) {
  *out = (struct dns_address){0};
  if (inet_pton(AF_INET, text, out->bytes) == 1)
    out->family = 4;
  else if (inet_pton(AF_INET6, text, out->bytes) == 1)
    out->family = 6;
  return out->family;
}

static bool is_wanted(const struct dns_entry *entry, uint8_t family) {
  return entry->kind == DNS_ADDRESS || (entry->kind == DNS_A && family == 4) ||
         (entry->kind == DNS_AAAA && family == 6);
}

// ---- The hosts file ----

static void hosts_read(struct dns *dns) {
  struct stat facts;
  enum { MOST = 1 << 20 };
  if (stat(dns->hosts_path, &facts) < 0) facts = (struct stat){0};
  int64_t mtime_ns = (int64_t)facts.st_mtim.tv_sec * 1000000000 + facts.st_mtim.tv_nsec;
  if (mtime_ns == dns->hosts_mtime_ns) return;
  dns->hosts_mtime_ns = mtime_ns;
  free(dns->hosts);
  dns->hosts = NULL;
  FILE *file = fopen(dns->hosts_path, "re");
  if (!file) return;
  dns->hosts = malloc(MOST + 1);
  if (dns->hosts) dns->hosts[fread(dns->hosts, 1, MOST, file)] = 0;
  fclose(file);
}

// Whether one of the words up to `end` is the name.
static bool line_names(const char *at, const char *end, const struct dns_entry *entry) {
  while (at < end) {
    size_t word = strcspn(at, " \t\r\n#");
    if (slice_equal_nocase((struct slice){at, (uint32_t)word}, (struct slice){entry->name, entry->name_len}))
      return true;
    if (at[word] == '#' || at + word >= end) return false;
    at += word + strspn(at + word, " \t\r");
  }
  return false;
}

static bool line_address(const char *line, size_t word, const struct dns_entry *entry, struct dns_address *out) {
  char text[INET6_ADDRSTRLEN];
  if (word == 0 || word >= sizeof text) return false;
  memcpy(text, line, word);
  text[word] = 0;
  return dns_parse_literal(text, out) && is_wanted(entry, out->family);
}

// As with DNS itself, an IPv6 address counts for DNS_ADDRESS only where there is no other.
static uint32_t prefer_v4(const struct dns_entry *entry, struct dns_address *found, uint32_t count) {
  uint32_t v4 = 0;
  if (entry->kind != DNS_ADDRESS) return count;
  for (uint32_t i = 0; i < count; i++)
    if (found[i].family == 4) found[v4++] = found[i];
  return v4 ? v4 : count;
}

static uint32_t hosts_find(struct dns *dns, const struct dns_entry *entry, struct dns_address *found) {
  uint32_t count = 0;
  hosts_read(dns);
  for (const char *line = dns->hosts; line && *line && count < DNS_RECORDS;) {
    const char *end = line + strcspn(line, "\n");
    size_t word = strcspn(line, " \t\r\n#");
    if (line_address(line, word, entry, &found[count])) {
      const char *names = line + word;
      names += strspn(names, " \t\r");
      if (line_names(names, end, entry)) count++;
    }
    line = *end ? end + 1 : end;
  }
  return prefer_v4(entry, found, count);
}

// "localhost" and what is below it never leave the machine (RFC 6761 6.3).
static uint32_t localhost_find(const struct dns_entry *entry, struct dns_address *found) {
  static const char name[] = "localhost";
  const uint32_t len = sizeof name - 1;
  if (entry->name_len < len || strcmp(entry->name + entry->name_len - len, name) != 0) return 0;
  if (entry->name_len > len && entry->name[entry->name_len - len - 1] != '.') return 0;
  return dns_parse_literal(entry->kind == DNS_AAAA ? "::1" : "127.0.0.1", found) ? 1 : 0;
}

static bool answer_from_hosts(struct dns_entry *entry) {
  struct dns_address found[DNS_RECORDS];
  if (entry->kind == DNS_SRV) return false;
  uint32_t count = hosts_find(entry->dns, entry, found);
  if (count == 0) count = localhost_find(entry, found);
  struct dns_address *kept = count ? malloc(count * sizeof *kept) : NULL;
  if (!kept) return false;
  memcpy(kept, found, count * sizeof *kept);
  dns_complete(entry, ARES_SUCCESS, kept, count, DNS_HOSTS_TTL_S);
  return true;
}

// ---- SRV: its targets have names, each to be resolved in turn ----

void dns_forget_targets(struct dns_entry *entry) {
  for (uint32_t i = 0; i < entry->target_count; i++) {
    dns_cancel(entry->dns, &entry->targets[i].query);
    free(entry->targets[i].name);
    free(entry->targets[i].found);
  }
  free(entry->targets);
  entry->targets = NULL;
  entry->target_count = entry->targets_left = 0;
}

static void targets_complete(struct dns_entry *entry) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < entry->target_count; i++) count += entry->targets[i].found_count;
  struct dns_address *all = count ? malloc(count * sizeof *all) : NULL;
  uint32_t at = 0;
  for (uint32_t i = 0; all && i < entry->target_count; i++)
    for (uint32_t j = 0; j < entry->targets[i].found_count; j++) all[at++] = entry->targets[i].found[j];
  double ttl_s = entry->targets_ttl_s;
  dns_forget_targets(entry);
  // The service exists, its targets are not to be found: that is a failure, not a "no".
  dns_complete(entry, all ? ARES_SUCCESS : ARES_ESERVFAIL, all, count, ttl_s);
}

static void target_answered(struct dns_srv *target) {
  struct dns_entry *entry = target->owner;
  const struct dns_query *query = &target->query;
  target->found = query->count ? malloc(query->count * sizeof *target->found) : NULL;
  if (target->found) {
    target->found_count = query->count;
    if (query->ttl_s < entry->targets_ttl_s) entry->targets_ttl_s = query->ttl_s;
    for (uint32_t i = 0; i < query->count; i++) {
      target->found[i] = query->addresses[i];
      target->found[i].port = target->port;
      target->found[i].priority = target->priority;
      target->found[i].weight = target->weight;
    }
  }
  if (--entry->targets_left == 0) targets_complete(entry);
}

static void on_target(struct dns_query *query) {
  target_answered((struct dns_srv *)(void *)((char *)query - offsetof(struct dns_srv, query)));
}

static int by_priority(const void *a, const void *b) {
  const struct dns_srv *left = a, *right = b;
  if (left->priority != right->priority) return left->priority - right->priority;
  return right->weight - left->weight;
}

static void resolve_targets(struct dns_entry *entry) {
  qsort(entry->targets, entry->target_count, sizeof *entry->targets, by_priority);
  entry->targets_left = entry->target_count + 1; // one for this loop: no answer on the way ends it
  for (uint32_t i = 0; i < entry->target_count; i++) {
    struct dns_srv *target = &entry->targets[i];
    target->owner = entry;
    target->query.on_done = on_target;
    struct slice name = slice_of(target->name);
    if (dns_resolve(entry->dns, name, DNS_ADDRESS, &target->query) == DNS_READY) target_answered(target);
  }
  if (--entry->targets_left == 0) targets_complete(entry);
}

static uint32_t read_u16(const unsigned char *at) {
  return (uint32_t)at[0] << 8 | at[1];
}

// The name at `*at`, which moves behind it; to be freed with ares_free_string. NULL: malformed.
static char *read_name(const unsigned char **at, const unsigned char *message, int len) {
  char *name = NULL;
  long used = 0;
  if (*at >= message + len || ares_expand_name(*at, message, len, &name, &used) != ARES_SUCCESS) return NULL;
  *at += used;
  return name;
}

static bool skip_name(const unsigned char **at, const unsigned char *message, int len) {
  char *name = read_name(at, message, len);
  if (name) ares_free_string(name);
  return name != NULL;
}

static bool read_target(struct dns_entry *entry, const unsigned char *data, const unsigned char *message, int len) {
  const unsigned char *at = data + 6;
  char *name = read_name(&at, message, len);
  if (!name) return false;
  if (name[0]) { // "." says that there is no such service
    struct dns_srv *target = &entry->targets[entry->target_count++];
    *target = (struct dns_srv){.priority = (uint16_t)read_u16(data),
                               .weight = (uint16_t)read_u16(data + 2),
                               .port = (uint16_t)read_u16(data + 4),
                               .name = strdup(name)};
    assert(target->name);
  }
  ares_free_string(name);
  return true;
}

// c-ares parses SRV too, but does not tell the TTL.
static bool read_targets(struct dns_entry *entry, const unsigned char *message, int len) {
  const unsigned char *at = message + 12, *end = message + len;
  if (len < 12) return false;
  uint32_t questions = read_u16(message + 4), answers = read_u16(message + 6);
  entry->targets_ttl_s = entry->dns->options.max_ttl_s;
  while (questions-- > 0) {
    if (!skip_name(&at, message, len) || end - at < 4) return false;
    at += 4;
  }
  while (answers-- > 0 && entry->target_count < DNS_RECORDS) {
    if (!skip_name(&at, message, len) || end - at < 10) return false;
    uint32_t type = read_u16(at), ttl_s = read_u16(at + 4) << 16 | read_u16(at + 6), size = read_u16(at + 8);
    at += 10;
    if (end - at < (ptrdiff_t)size) return false;
    if (ttl_s < entry->targets_ttl_s) entry->targets_ttl_s = ttl_s;
    if (type == ns_t_srv && (size < 7 || !read_target(entry, at, message, len))) return false;
    at += size;
  }
  return true;
}

static void on_srv(struct dns_entry *entry, const unsigned char *message, int len) {
  entry->targets = calloc(DNS_RECORDS, sizeof *entry->targets);
  if (entry->targets && read_targets(entry, message, len) && entry->target_count > 0) {
    resolve_targets(entry);
    return;
  }
  int status = !entry->targets ? ARES_ENOMEM : entry->target_count ? ARES_EBADRESP : ARES_ENODATA;
  dns_forget_targets(entry);
  dns_complete(entry, status, NULL, 0, 0);
}

// ---- Questions to the servers ----

static void search(struct dns_entry *entry, int type);

static void on_v4(struct dns_entry *entry, const unsigned char *message, int len) {
  struct ares_addrttl found[DNS_RECORDS];
  int count = DNS_RECORDS;
  int status = ares_parse_a_reply(message, len, NULL, found, &count);
  if (status == ARES_ENODATA && entry->kind == DNS_ADDRESS) { // an alias of a name that has no A
    entry->asked_v6 = true;
    search(entry, ns_t_aaaa);
    return;
  }
  struct dns_address *all = status == ARES_SUCCESS && count > 0 ? calloc((size_t)count, sizeof *all) : NULL;
  int ttl_s = INT32_MAX;
  for (int i = 0; all && i < count; i++) {
    all[i].family = 4;
    memcpy(all[i].bytes, &found[i].ipaddr, 4);
    if (found[i].ttl < ttl_s) ttl_s = found[i].ttl;
  }
  if (status == ARES_SUCCESS && !all) status = ARES_ENODATA;
  dns_complete(entry, status, all, all ? (uint32_t)count : 0, ttl_s);
}

static void on_v6(struct dns_entry *entry, const unsigned char *message, int len) {
  struct ares_addr6ttl found[DNS_RECORDS];
  int count = DNS_RECORDS;
  int status = ares_parse_aaaa_reply(message, len, NULL, found, &count);
  struct dns_address *all = status == ARES_SUCCESS && count > 0 ? calloc((size_t)count, sizeof *all) : NULL;
  int ttl_s = INT32_MAX;
  for (int i = 0; all && i < count; i++) {
    all[i].family = 6;
    memcpy(all[i].bytes, &found[i].ip6addr, 16);
    if (found[i].ttl < ttl_s) ttl_s = found[i].ttl;
  }
  if (status == ARES_SUCCESS && !all) status = ARES_ENODATA;
  dns_complete(entry, status, all, all ? (uint32_t)count : 0, ttl_s);
}

static void on_answer(void *data, int status, int timeouts, unsigned char *message, int len) {
  struct dns_entry *entry = data;
  (void)timeouts;
  if (entry->dns->closing) return;
  if (status == ARES_ENODATA && entry->kind == DNS_ADDRESS && !entry->asked_v6) {
    entry->asked_v6 = true;
    search(entry, ns_t_aaaa);
  } else if (status != ARES_SUCCESS) {
    dns_complete(entry, status, NULL, 0, 0);
  } else if (entry->kind == DNS_SRV) {
    on_srv(entry, message, len);
  } else if (entry->kind == DNS_AAAA || entry->asked_v6) {
    on_v6(entry, message, len);
  } else {
    on_v4(entry, message, len);
  }
}

// When c-ares wants to be called although no socket has anything.
static void arm_timer(struct dns *dns) {
  struct timeval room, *wait = ares_timeout(dns->channel, NULL, &room);
  ev_timer_stop(dns->loop->ev, &dns->timer);
  if (!wait) return;
  ev_timer_set(&dns->timer, (double)wait->tv_sec + (double)wait->tv_usec / 1e6 + 0.001, 0);
  ev_timer_start(dns->loop->ev, &dns->timer);
}

static void search(struct dns_entry *entry, int type) {
  struct dns *dns = entry->dns;
  dns->counts.queries++;
  ares_search(dns->channel, entry->name, ns_c_in, type, on_answer, entry);
  arm_timer(dns);
}

static void ask_function(struct dns_entry *entry) {
  struct dns *dns = entry->dns;
  struct dns_address *addresses = calloc(DNS_RECORDS, sizeof *addresses);
  int count = addresses ? dns->answer(dns->answer_context, entry->name, entry->kind, addresses) : -1;
  if (count > 0) {
    dns_complete(entry, ARES_SUCCESS, addresses, (uint32_t)count, DNS_ANSWER_TTL_S);
    return;
  }
  free(addresses);
  dns_complete(entry, count == 0 ? ARES_ENOTFOUND : ARES_ECONNREFUSED, NULL, 0, 0);
}

void dns_ask(struct dns_entry *entry) {
  if (entry->dns->answer) {
    ask_function(entry);
    return;
  }
  if (answer_from_hosts(entry)) return;
  if (entry->dns->offline) {
    dns_complete(entry, ARES_ECONNREFUSED, NULL, 0, 0);
    return;
  }
  search(entry, entry->kind == DNS_SRV ? ns_t_srv : entry->kind == DNS_AAAA ? ns_t_aaaa : ns_t_a);
}

// ---- Sockets and time-outs of c-ares on the loop ----

static void on_socket(struct ev_loop *ev, ev_io *watcher, int events) {
  struct dns_socket *socket = watcher->data;
  struct dns *dns = socket->dns;
  int fd = watcher->fd; // the watcher may be gone afterwards
  (void)ev;
  ares_process_fd(dns->channel, events & EV_READ ? fd : ARES_SOCKET_BAD, events & EV_WRITE ? fd : ARES_SOCKET_BAD);
  arm_timer(dns);
  dns_tell(dns);
}

static void on_timer(struct ev_loop *ev, ev_timer *watcher, int events) {
  struct dns *dns = watcher->data;
  (void)ev;
  (void)events;
  ares_process_fd(dns->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  arm_timer(dns);
  dns_tell(dns);
}

static struct dns_socket *socket_of(struct dns *dns, int fd) {
  for (struct dns_socket *socket = dns->sockets; socket; socket = socket->next)
    if (socket->watcher.fd == fd) return socket;
  struct dns_socket *socket = calloc(1, sizeof *socket);
  assert(socket);
  socket->dns = dns;
  socket->next = dns->sockets;
  dns->sockets = socket;
  ev_io_init(&socket->watcher, on_socket, fd, EV_READ);
  socket->watcher.data = socket;
  return socket;
}

static void socket_forget(struct dns_socket *socket) {
  struct dns_socket **at = &socket->dns->sockets;
  while (*at != socket) at = &(*at)->next;
  *at = socket->next;
  free(socket);
}

// c-ares tells what it wants of each of its sockets; nothing: it closes it.
static void on_socket_state(void *data, ares_socket_t fd, int readable, int writable) {
  struct dns *dns = data;
  struct dns_socket *socket = socket_of(dns, fd);
  ev_io_stop(dns->loop->ev, &socket->watcher);
  if (!readable && !writable) {
    socket_forget(socket);
    return;
  }
  ev_io_set(&socket->watcher, fd, (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
  ev_io_start(dns->loop->ev, &socket->watcher);
}

int dns_ask_open(struct dns *dns, const struct dns_options *options, struct error *error) {
  struct ares_options wanted = {.timeout = (int)dns->options.timeout_ms,
                                .tries = (int)dns->options.tries,
                                .sock_state_cb = on_socket_state,
                                .sock_state_cb_data = dns};
  ev_init(&dns->timer, on_timer);
  ev_set_priority(&dns->timer, EV_MINPRI); // behind what has come to the sockets
  dns->timer.data = dns;
  dns->hosts_path = strdup(options->hosts_file ? options->hosts_file : "/etc/hosts");
  if (!dns->hosts_path) return error_set(error, ERROR_MEMORY, "no memory for DNS");
  int status = ares_init_options(&dns->channel, &wanted, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
  if (status == ARES_SUCCESS && options->servers) status = ares_set_servers_ports_csv(dns->channel, options->servers);
  if (status == ARES_SUCCESS) return 0;
  return error_set(error, ERROR_DNS, "DNS cannot be set up: %s", ares_strerror(status));
}

void dns_ask_close(struct dns *dns) {
  if (dns->channel) ares_destroy(dns->channel);
  ev_timer_stop(dns->loop->ev, &dns->timer);
  while (dns->sockets) {
    ev_io_stop(dns->loop->ev, &dns->sockets->watcher);
    socket_forget(dns->sockets);
  }
  free(dns->hosts_path);
  free(dns->hosts);
}
