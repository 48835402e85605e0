// SPDX-License-Identifier: Apache-2.0
// Which route takes a request: candidates from the index, each checked whole, the best one kept.
//
// A path that servers may read in several ways is matched in all. When another reading leads to a better route the
// request is refused: it would reach what that route guards by way of this one. "/open/..%2Fadmin" is an example,
// "/admin;x/keys" beside a route for "/admin/" another.
#include "router_parts.h"

#include <assert.h>
#include <stdlib.h>

#include "loose.h"

// ---- Attributes ----

static uint64_t method_bit(const struct router *router, struct slice method) {
  for (uint32_t bit = 0; bit < router->method_count; bit++)
    if (slice_equal(router->methods[bit], method)) return 1ull << bit;
  return 0;
}

static bool port_fits(const struct rule_host *host, const struct router_request *request) {
  return host->port == 0 || host->port == request->port;
}

static bool host_fits(const struct rule_host *host, const struct router_request *request) {
  struct slice text = host->text, name = request->host;
  if (!port_fits(host, request)) return false;
  if (host->kind == HOST_EXACT) return slice_equal(text, name);
  if (name.len <= text.len) return false;
  return memcmp(host->kind == HOST_SUFFIX ? name.data + name.len - text.len : name.data, text.data, text.len) == 0;
}

// The first of the rule's hosts that fits, or NONE.
static uint32_t fitting_host(const struct router *router, const struct rule *rule,
                             const struct router_request *request) {
  for (uint32_t i = rule->first_host; i < rule->first_host + rule->hosts; i++)
    if (host_fits(host_at(router, i), request)) return i;
  return NONE;
}

static bool snis_fit(const struct router *router, const struct rule *rule, const struct router_request *request) {
  if (rule->snis == 0 || !request->tls) return true;
  struct slice sni = request->sni;
  if (sni.len > 1 && sni.data[sni.len - 1] == '.') sni.len--;
  for (uint32_t i = rule->first_sni; i < rule->first_sni + rule->snis; i++)
    if (slice_equal(sni_at(router, i), sni)) return true;
  return false;
}

static bool value_fits(struct router *router, const struct rule_value *value, struct slice text, bool *overrun) {
  if (!value->regex) return slice_equal_nocase(value->text, text);
  int matched = regex_match(value->regex, text, router->scratch);
  if (matched == REGEX_OVERRUN) *overrun = true;
  return matched > 0;
}

static bool header_fits(struct router *router, const struct rule_header *header, const struct router_request *request,
                        bool *overrun) {
  struct slice text;
  if (!request->header) return false;
  for (uint32_t nth = 0; request->header(request->context, header->name, nth, &text); nth++)
    for (uint32_t i = header->first_value; i < header->first_value + header->values; i++)
      if (value_fits(router, value_at(router, i), text, overrun)) return true;
  return false;
}

// The first of the rule's headers that does not fit, or NONE.
static uint32_t failing_header(struct router *router, const struct rule *rule, const struct router_request *request,
                               bool *overrun) {
  for (uint32_t i = rule->first_header; i < rule->first_header + rule->headers; i++)
    if (!header_fits(router, header_at(router, i), request, overrun)) return i;
  return NONE;
}

// Leaves the spans of a regex in the router's scratch.
static bool path_fits(struct router *router, const struct rule_path *path, struct slice text, bool *overrun) {
  if (!path->regex) return path->text.len <= text.len && memcmp(path->text.data, text.data, path->text.len) == 0;
  int matched = regex_match(path->regex, text, router->scratch);
  if (matched == REGEX_OVERRUN) *overrun = true;
  return matched > 0;
}

static bool needs_tls(const struct rule *rule, const struct router_request *request) {
  uint32_t plain = PROTOCOL_HTTP | PROTOCOL_GRPC | PROTOCOL_WS;
  return !request->secure && rule->protocols != 0 && !(rule->protocols & plain);
}

// ---- Matching ----

struct search {
  struct router *router;
  const struct router_request *request;
  struct router_result *result;
  uint64_t method;        // its bit
  uint32_t best, overrun; // items, 0: none; `overrun`: the best whose regex gave up
};

static bool host_of_item_fits(const struct search *search, const struct rule *rule, const struct route_item *item) {
  if (item->host != NONE) {
    const struct rule_host *host = host_at(search->router, item->host);
    // The group tells the name, but for a star alone, which is filed under any host.
    return item->group ? port_fits(host, search->request) : host_fits(host, search->request);
  }
  return rule->hosts == 0 || fitting_host(search->router, rule, search->request) != NONE;
}

static bool item_fits(struct search *search, uint32_t at) {
  struct router *router = search->router;
  const struct router_request *request = search->request;
  const struct route_item *item = &router->index.items[at];
  const struct rule *rule = rule_at(router, item->rule);
  bool overrun = false;
  bool fits = (!rule->methods || rule->methods & search->method) && host_of_item_fits(search, rule, item) &&
              snis_fit(router, rule, request) &&
              (rule->headers == 0 || failing_header(router, rule, request, &overrun) == NONE) &&
              (item->path == NONE || path_fits(router, path_at(router, item->path), request->path, &overrun));
  if (overrun && !fits && at > search->overrun) search->overrun = at;
  return fits;
}

static void take_captures(struct router *router, const struct regex *regex, struct router_result *result) {
  uint32_t from, groups = regex_group_count(regex);
  regex_span(router->scratch, 0, &from, &result->path_len);
  result->group_count = groups < ROUTER_MAX_GROUPS ? groups : ROUTER_MAX_GROUPS;
  for (uint32_t i = 0; i < result->group_count; i++)
    regex_span(router->scratch, i + 1, &result->groups[i].from, &result->groups[i].to);
}

static void take(struct search *search, uint32_t at) {
  struct router *router = search->router;
  const struct route_item *item = &router->index.items[at];
  struct router_result *result = search->result;
  search->best = at;
  result->route = item->rule + 1;
  result->path = (struct slice){NULL, 0};
  result->path_len = result->regex = result->group_count = 0;
  if (item->path == NONE) return;
  const struct rule_path *path = path_at(router, item->path);
  result->path = path->text;
  result->path_len = path->text.len;
  if (!path->regex) return;
  result->regex = item->path + 1;
  take_captures(router, path->regex, result);
}

static void search_list(struct search *search, uint32_t group, uint32_t first) {
  for (uint32_t at = first; at > search->best; at = search->router->index.items[at].next) {
    if (search->router->index.items[at].group != group || !item_fits(search, at)) continue;
    take(search, at);
    return;
  }
}

// Longer keys first: they hold the likelier winners, and what cannot beat the best so far is not looked at.
static void search_group(struct search *search, uint32_t group) {
  uint32_t lists[INDEX_MAX_LISTS];
  uint32_t count = route_index_lists(&search->router->index, group, search->request->path, lists);
  while (count-- > 0) search_list(search, group, lists[count]);
}

static void name_host(const struct search *search) {
  const struct router *router = search->router;
  const struct route_item *item = &router->index.items[search->best];
  uint32_t host = item->host != NONE ? item->host : fitting_host(router, rule_at(router, item->rule), search->request);
  search->result->host = host == NONE ? (struct slice){NULL, 0} : host_at(router, host)->pattern;
}

static void search_groups(struct search *search) {
  uint32_t groups[INDEX_MAX_GROUPS];
  uint32_t count = route_index_groups(&search->router->index, search->request->host, groups);
  for (uint32_t i = 0; i < count; i++) search_group(search, groups[i]);
}

// ---- Other readings ----

// A path that mixes kinds has up to 60 readings, so a long one would be a way to keep a worker busy.
enum { MIXED_BYTES = 2048 };

static bool reserve_loose(struct router *router, uint32_t room) {
  if (room <= router->loose_room) return true;
  char *buffer = realloc(router->loose, room);
  if (!buffer) return false;
  router->loose = buffer;
  router->loose_room = room;
  return true;
}

// Whether a path leads to another route, better than that of item `best`.
static bool leads_elsewhere(struct router *router, const struct router_request *request, struct slice path,
                            uint32_t best) {
  struct router_request other = *request;
  struct router_result result;
  other.path = path;
  struct search search = {.router = router, .request = &other, .result = &result, .best = best};
  search.method = method_bit(router, request->method);
  search_groups(&search);
  const struct route_item *items = router->index.items;
  return search.overrun > best || items[search.best].rule != items[best].rule;
}

// In doubt it is.
static bool is_ambiguous(struct router *router, const struct router_request *request, uint32_t best) {
  struct slice path = request->path;
  uint32_t kinds = loose_kinds(path);
  if (kinds == 0) return false;
  if (kinds & (kinds - 1) && path.len > MIXED_BYTES) return true;
  if (!reserve_loose(router, path.len)) return true;
  for (uint32_t reading = 1; reading < LOOSE_READINGS; reading++) {
    if (!loose_applies(reading, kinds)) continue;
    int64_t len = loose_read(path, reading, router->loose);
    if (len < 0 || leads_elsewhere(router, request, (struct slice){router->loose, (uint32_t)len}, best)) return true;
  }
  return false;
}

enum router_outcome router_match(struct router *router, const struct router_request *request,
                                 struct router_result *result) {
  assert(router->stage == STAGE_DONE);
  struct search search = {.router = router, .request = request, .result = result};
  search.method = method_bit(router, request->method);
  search_groups(&search);
  if (search.overrun > search.best) {
    *result = (struct router_result){.route = router->index.items[search.overrun].rule + 1};
    return ROUTER_OVERRUN;
  }
  if (search.best == 0) {
    result->route = 0;
    return ROUTER_NOTHING;
  }
  name_host(&search);
  if (is_ambiguous(router, request, search.best)) return ROUTER_AMBIGUOUS;
  return needs_tls(rule_at(router, result->route - 1), request) ? ROUTER_NEEDS_TLS : ROUTER_FOUND;
}

bool router_capture_name(const struct router *router, uint32_t regex, uint32_t index, struct slice *name,
                         uint32_t *group) {
  if (regex == 0 || regex > router->paths.count) return false;
  return regex_group_name(path_at(router, regex - 1)->regex, index, name, group) && *group <= ROUTER_MAX_GROUPS;
}

// ---- Explaining ----

static uint8_t verdict(bool asked, bool fits) {
  return asked ? fits ? VERDICT_MATCHED : VERDICT_FAILED : VERDICT_UNSET;
}

// The best of the rule's paths that fit, or NONE.
static uint32_t fitting_path(struct router *router, const struct rule *rule, struct slice text) {
  bool overrun = false;
  uint32_t best = NONE;
  for (uint32_t i = rule->first_path; i < rule->first_path + rule->paths; i++) {
    if (!path_fits(router, path_at(router, i), text, &overrun)) continue;
    if (best == NONE || rule_priority(router, rule, i) > rule_priority(router, rule, best)) best = i;
  }
  return best;
}

void router_explain(struct router *router, const struct router_request *request, uint32_t route,
                    struct router_reasons *reasons) {
  assert(route > 0 && route <= router->rules.count);
  const struct rule *rule = rule_at(router, route - 1);
  bool overrun = false;
  uint32_t host = fitting_host(router, rule, request), path = fitting_path(router, rule, request->path);
  uint32_t header = failing_header(router, rule, request, &overrun);
  *reasons = (struct router_reasons){
      .methods = verdict(rule->methods != 0, rule->methods & method_bit(router, request->method)),
      .hosts = verdict(rule->hosts > 0, host != NONE),
      .paths = verdict(rule->paths > 0, path != NONE),
      .headers = verdict(rule->headers > 0, header == NONE),
      .snis = verdict(rule->snis > 0 && request->tls, snis_fit(router, rule, request)),
      .tls_missing = needs_tls(rule, request)};
  if (host != NONE) reasons->host = host_at(router, host)->pattern;
  if (path != NONE) reasons->path = path_at(router, path)->text;
  if (header != NONE) reasons->header = header_at(router, header)->name;
  if (path == NONE && rule->paths > 0) path = rule->first_path;
  reasons->priority = rule_priority(router, rule, path);
}

bool router_field(const void *context, struct slice name, uint32_t nth, struct slice *value) {
  const struct router_fields *fields = context;
  for (uint32_t i = 0; i < fields->count; i++) {
    if (!slice_equal_nocase(fields->pairs[2 * i], name) || nth-- > 0) continue;
    *value = fields->pairs[2 * i + 1];
    return true;
  }
  return false;
}
