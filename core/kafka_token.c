// SPDX-License-Identifier: Apache-2.0
// Tokens of SASL OAUTHBEARER: fetched by Lua, which speaks HTTP without blocking, and given to each handle of a cluster.
//
// Handles come and go on helper threads, where a consumer's first call waits for a broker that waits for a token: so a
// handle that comes gets the token that is there at once, or has the loop told that one is wanted.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "kafka_parts.h"

enum { LIFE_LEAST_MS = 1000, EXTENSIONS_MOST = 32 };

struct tokens {
  pthread_mutex_t lock; // of all below, but for `wake_fd`
  int wake_fd;          // the loop's
  rd_kafka_t **handles;
  uint32_t count, room;
  bool wanted; // by a handle that has none
  char *value, *principal;
  char *extensions[2 * EXTENSIONS_MOST]; // names and values
  size_t extension_count;                // of both
  int64_t until_ms;                      // since 1970
};

struct tokens *tokens_new(int wake_fd) {
  struct tokens *tokens = calloc(1, sizeof *tokens);
  if (!tokens) return NULL;
  pthread_mutex_init(&tokens->lock, NULL);
  tokens->wake_fd = wake_fd;
  return tokens;
}

static void token_clear(struct tokens *tokens) {
  free(tokens->value);
  free(tokens->principal);
  for (size_t i = 0; i < tokens->extension_count; i++) free(tokens->extensions[i]);
  tokens->value = tokens->principal = NULL;
  tokens->extension_count = 0;
}

void tokens_free(struct tokens *tokens) {
  if (!tokens) return;
  token_clear(tokens);
  free(tokens->handles);
  pthread_mutex_destroy(&tokens->lock);
  free(tokens);
}

static bool token_good(const struct tokens *tokens) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return tokens->value && (int64_t)now.tv_sec * 1000 + LIFE_LEAST_MS < tokens->until_ms;
}

static int token_hand(struct tokens *tokens, rd_kafka_t *rk, struct error *error) {
  char text[200];
  rd_kafka_resp_err_t code =
      rd_kafka_oauthbearer_set_token(rk, tokens->value, tokens->until_ms, tokens->principal,
                                     (const char **)tokens->extensions, tokens->extension_count, text, sizeof text);
  return code ? error_set(error, ERROR_INVALID, "the token is not for Kafka: %s", text) : 0;
}

void cluster_join(struct cluster *cluster, rd_kafka_t *rk) {
  struct tokens *tokens = cluster->tokens;
  if (!tokens) return;
  pthread_mutex_lock(&tokens->lock);
  if (tokens->count == tokens->room) {
    uint32_t room = tokens->room ? 2 * tokens->room : 8;
    rd_kafka_t **handles = realloc(tokens->handles, room * sizeof(rd_kafka_t *));
    if (handles) {
      tokens->handles = handles;
      tokens->room = room;
    }
  }
  if (tokens->count < tokens->room) tokens->handles[tokens->count++] = rk;
  if (!token_good(tokens) || token_hand(tokens, rk, NULL) != 0) {
    tokens->wanted = true;
    eventfd_write(tokens->wake_fd, 1);
  }
  pthread_mutex_unlock(&tokens->lock);
}

void cluster_leave(struct cluster *cluster, rd_kafka_t *rk) {
  struct tokens *tokens = cluster->tokens;
  if (!tokens) return;
  pthread_mutex_lock(&tokens->lock);
  for (uint32_t i = 0; i < tokens->count; i++)
    if (tokens->handles[i] == rk) tokens->handles[i--] = tokens->handles[--tokens->count];
  pthread_mutex_unlock(&tokens->lock);
}

bool tokens_wanted(struct tokens *tokens) {
  pthread_mutex_lock(&tokens->lock);
  bool wanted = tokens->wanted;
  tokens->wanted = false;
  pthread_mutex_unlock(&tokens->lock);
  return wanted;
}

// ---- What Lua has fetched ----

static int token_keep(struct tokens *tokens, const struct kafka_token *token) {
  token_clear(tokens);
  tokens->until_ms = (int64_t)token->until_ms;
  tokens->value = strdup(token->value);
  tokens->principal = strdup(token->principal);
  for (uint32_t i = 0; i < 2 * token->extension_count; i++)
    if ((tokens->extensions[tokens->extension_count] = strdup(token->extensions[i]))) tokens->extension_count++;
  bool whole = tokens->value && tokens->principal && tokens->extension_count == 2 * token->extension_count;
  if (!whole) token_clear(tokens);
  return whole ? 0 : ERROR_MEMORY;
}

int kafka_token(struct kafka *kafka, const char *name, const struct kafka_token *token, struct error *error) {
  struct cluster *cluster = cluster_find(kafka, name);
  if (!cluster || !cluster->tokens) return BRIDGE_NONE;
  if (token->extension_count > EXTENSIONS_MOST) {
    error_set(error, ERROR_INVALID, "more than %d extensions", EXTENSIONS_MOST);
    return BRIDGE_INVALID;
  }
  struct tokens *tokens = cluster->tokens;
  pthread_mutex_lock(&tokens->lock);
  int status = token_keep(tokens, token);
  for (uint32_t i = 0; i < tokens->count && status == 0; i++) status = token_hand(tokens, tokens->handles[i], error);
  if (status != 0) token_clear(tokens);
  pthread_mutex_unlock(&tokens->lock);
  if (status == 0) return BRIDGE_OK;
  return status == ERROR_MEMORY ? BRIDGE_FULL : BRIDGE_INVALID;
}

int kafka_token_failed(struct kafka *kafka, const char *name, const char *why) {
  struct cluster *cluster = cluster_find(kafka, name);
  if (!cluster || !cluster->tokens) return BRIDGE_NONE;
  if (cluster->state != CLUSTER_UP) cluster->state = CLUSTER_DOWN; // one that is up has a token that is still good
  cluster_trouble(cluster, why);
  return BRIDGE_OK;
}

uint32_t kafka_token_users(struct kafka *kafka, const char *name) {
  const struct cluster *cluster = cluster_find(kafka, name);
  if (!cluster || !cluster->tokens) return 0;
  pthread_mutex_lock(&cluster->tokens->lock);
  uint32_t count = cluster->tokens->count;
  pthread_mutex_unlock(&cluster->tokens->lock);
  return count;
}
