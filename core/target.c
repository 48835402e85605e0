// SPDX-License-Identifier: Apache-2.0
// Upstreams, targets and their addresses.
#include "target.h"

#include <arpa/inet.h>
#include <stddef.h>

#include "dns.h"
#include "error.h"

bool address_parse(struct slice host, uint16_t port, struct address *out) {
  char text[INET6_ADDRSTRLEN + 2];
  if (host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']') {
    host.data++;
    host.len -= 2;
  }
  if (host.len == 0 || host.len >= sizeof text || memchr(host.data, 0, host.len)) return false;
  memcpy(text, host.data, host.len);
  text[host.len] = 0;
  *out = (struct address){0};
  if (inet_pton(AF_INET, text, &out->socket.v4.sin_addr) == 1) {
    out->socket.v4.sin_family = AF_INET;
    out->socket.v4.sin_port = htons(port);
    out->len = sizeof out->socket.v4;
    return true;
  }
  if (inet_pton(AF_INET6, text, &out->socket.v6.sin6_addr) == 1) {
    out->socket.v6.sin6_family = AF_INET6;
    out->socket.v6.sin6_port = htons(port);
    out->len = sizeof out->socket.v6;
    return true;
  }
  return false;
}

bool address_unix(struct slice host, struct address *out) {
  static const struct slice prefix = SLICE("unix:");
  if (host.len <= prefix.len || memcmp(host.data, prefix.data, prefix.len) != 0) return false;
  uint32_t len = host.len - prefix.len;
  if (len >= sizeof out->socket.local.sun_path) return false;
  *out = (struct address){.len = (uint32_t)offsetof(struct sockaddr_un, sun_path) + len + 1};
  out->socket.local.sun_family = AF_UNIX;
  memcpy(out->socket.local.sun_path, host.data + prefix.len, len);
  return true;
}

const char *address_text(const struct sockaddr *address, char *out) {
  out[0] = 0;
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, out, INET6_ADDRSTRLEN);
  } else if (address->sa_family == AF_INET6) {
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6))
      inet_ntop(AF_INET, (const char *)v6 + 12, out, INET6_ADDRSTRLEN);
    else
      inet_ntop(AF_INET6, v6, out, INET6_ADDRSTRLEN);
  } else {
    memcpy(out, "127.0.0.1", 10); // a unix socket: the peer is this machine
  }
  return out;
}

uint16_t address_port(const struct sockaddr *address) {
  if (address->sa_family == AF_INET) return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
  if (address->sa_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
  return 0;
}

uint32_t addresses_take(struct address *addresses, const struct dns_query *query, uint16_t port) {
  uint32_t count = query->count < TARGET_ADDRESSES ? query->count : TARGET_ADDRESSES;
  for (uint32_t i = 0; i < count; i++) {
    const struct dns_address *from = &query->addresses[i];
    if (from->priority != query->addresses[0].priority) return i; // they come in order
    struct address *to = &addresses[i];
    uint16_t wire = htons(from->port ? from->port : port);
    *to = (struct address){0};
    if (from->family == 4) {
      to->socket.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = wire};
      memcpy(&to->socket.v4.sin_addr, from->bytes, 4);
      to->len = sizeof to->socket.v4;
    } else {
      to->socket.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = wire};
      memcpy(&to->socket.v6.sin6_addr, from->bytes, 16);
      to->len = sizeof to->socket.v6;
    }
  }
  return count;
}

uint32_t addresses_first(const struct dns_query *query, uint32_t count, uint32_t turn, uint64_t random) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; i++) sum += query->addresses[i].weight;
  if (sum == 0) return count ? turn % count : 0;
  uint64_t left = random % sum;
  uint32_t first = 0;
  while (left >= query->addresses[first].weight) left -= query->addresses[first++].weight;
  return first;
}

int upstream_add_target(struct upstream *upstream, struct arena *arena, struct slice host, uint16_t port,
                        uint32_t weight) {
  if (upstream->target_count == upstream->target_room) {
    uint32_t room = upstream->target_room ? upstream->target_room * 2 : 1;
    struct target *targets = arena_alloc(arena, room * sizeof *targets);
    if (!targets) return ERROR_MEMORY;
    if (upstream->target_count) memcpy(targets, upstream->targets, upstream->target_count * sizeof *targets);
    upstream->targets = targets;
    upstream->target_room = room;
  }
  struct target *target = &upstream->targets[upstream->target_count];
  *target = (struct target){.host = arena_copy(arena, host.data, host.len), .port = port, .weight = weight};
  if (!target->host.data) return ERROR_MEMORY;
  target->literal = address_parse(host, port, &target->fixed);
  return (int)++upstream->target_count;
}

struct target *upstream_next(struct upstream *upstream) {
  if (upstream->schedule_count == 0) return upstream->target_count == 1 ? upstream->targets : NULL;
  uint32_t index = upstream->schedule[upstream->cursor];
  upstream->cursor = upstream->cursor + 1 < upstream->schedule_count ? upstream->cursor + 1 : 0;
  return &upstream->targets[index - 1];
}
