// SPDX-License-Identifier: Apache-2.0
// Questions in librdkafka's words. Each has its texts in the order that enum kafka_ask (bridge.h) gives.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_admin.h"

enum { ACL_TEXTS = 7, REPLICAS_MAX = 64, GROUPS_MAX = 4096 };

// What a question hands to librdkafka, besides its texts.
struct asking {
  struct ask *ask;
  rd_kafka_t *rk;
  rd_kafka_queue_t *queue;
  rd_kafka_AdminOptions_t *options;
};

struct shape {
  uint32_t least, group; // so many texts at least, and the rest in groups of this size
  bool blocks;
  rd_kafka_admin_op_t op;
  rd_kafka_resp_err_t (*begin)(const struct asking *asking);
};

static rd_kafka_resp_err_t refuse(const struct asking *asking, const char *why) {
  snprintf(asking->ask->why, sizeof asking->ask->why, "%s", why);
  return RD_KAFKA_RESP_ERR__INVALID_ARG;
}

static int32_t number_of(const char *text) {
  return (int32_t)strtol(text, NULL, 10);
}

// ---- Topics ----

// Brokers of one partition: "1,2,3".
static rd_kafka_resp_err_t assign_replicas(const struct asking *asking, rd_kafka_NewTopic_t *topic, int32_t partition,
                                           const char *text) {
  int32_t brokers[REPLICAS_MAX];
  size_t count = 0;
  for (const char *at = text; at && *at && count < REPLICAS_MAX; at = strchr(at, ','), at = at ? at + 1 : NULL)
    brokers[count++] = number_of(at);
  return rd_kafka_NewTopic_set_replica_assignment(topic, partition, brokers, count, asking->ask->why,
                                                  sizeof asking->ask->why);
}

static rd_kafka_resp_err_t fill_topic(const struct asking *asking, rd_kafka_NewTopic_t *topic) {
  char **texts = asking->ask->texts;
  uint32_t at = 5, end = 5 + (uint32_t)number_of(texts[4]);
  rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
  for (; at < end && at < asking->ask->count && !code; at++)
    code = assign_replicas(asking, topic, (int32_t)(at - 5), texts[at]);
  for (; at + 1 < asking->ask->count && !code; at += 2)
    code = rd_kafka_NewTopic_set_config(topic, texts[at], texts[at + 1]);
  return code;
}

static rd_kafka_resp_err_t begin_create_topic(const struct asking *asking) {
  char **texts = asking->ask->texts, *why = asking->ask->why;
  size_t size = sizeof asking->ask->why;
  rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(texts[0], number_of(texts[1]), number_of(texts[2]), why, size);
  if (!topic) return RD_KAFKA_RESP_ERR__INVALID_ARG;
  rd_kafka_AdminOptions_set_validate_only(asking->options, texts[3][0] != 0, why, size);
  rd_kafka_resp_err_t code = fill_topic(asking, topic);
  if (!code) rd_kafka_CreateTopics(asking->rk, &topic, 1, asking->options, asking->queue);
  rd_kafka_NewTopic_destroy(topic);
  return code;
}

static rd_kafka_resp_err_t begin_delete_topic(const struct asking *asking) {
  rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(asking->ask->texts[0]);
  rd_kafka_DeleteTopics(asking->rk, &topic, 1, asking->options, asking->queue);
  rd_kafka_DeleteTopic_destroy(topic);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_create_partitions(const struct asking *asking) {
  char **texts = asking->ask->texts;
  rd_kafka_NewPartitions_t *partitions =
      rd_kafka_NewPartitions_new(texts[0], strtoul(texts[1], NULL, 10), asking->ask->why, sizeof asking->ask->why);
  if (!partitions) return RD_KAFKA_RESP_ERR__INVALID_ARG;
  rd_kafka_CreatePartitions(asking->rk, &partitions, 1, asking->options, asking->queue);
  rd_kafka_NewPartitions_destroy(partitions);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

// Topic and partition, and an offset where `group` is 3.
static rd_kafka_topic_partition_list_t *positions_of(const struct ask *ask, uint32_t at, uint32_t group) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)((ask->count - at) / group));
  for (; at + group <= ask->count; at += group) {
    rd_kafka_topic_partition_t *position =
        rd_kafka_topic_partition_list_add(list, ask->texts[at], number_of(ask->texts[at + 1]));
    if (group == 3) position->offset = strtoll(ask->texts[at + 2], NULL, 10);
  }
  return list;
}

static rd_kafka_resp_err_t begin_delete_records(const struct asking *asking) {
  rd_kafka_topic_partition_list_t *list = positions_of(asking->ask, 0, 3);
  rd_kafka_DeleteRecords_t *records = rd_kafka_DeleteRecords_new(list);
  rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_DeleteRecords(asking->rk, &records, 1, asking->options, asking->queue);
  rd_kafka_DeleteRecords_destroy(records);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

// ---- Configurations ----

static rd_kafka_ConfigResource_t *resource_of(const struct asking *asking) {
  char **texts = asking->ask->texts;
  rd_kafka_ResourceType_t type = strcmp(texts[0], "broker") == 0 ? RD_KAFKA_RESOURCE_BROKER : RD_KAFKA_RESOURCE_TOPIC;
  rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(type, texts[1]);
  if (!resource) refuse(asking, "a configuration of nothing");
  return resource;
}

static rd_kafka_resp_err_t begin_configs(const struct asking *asking) {
  rd_kafka_ConfigResource_t *resource = resource_of(asking);
  if (!resource) return RD_KAFKA_RESP_ERR__INVALID_ARG;
  rd_kafka_DescribeConfigs(asking->rk, &resource, 1, asking->options, asking->queue);
  rd_kafka_ConfigResource_destroy(resource);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_alter_configs(const struct asking *asking) {
  rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
  rd_kafka_ConfigResource_t *resource = resource_of(asking);
  if (!resource) return RD_KAFKA_RESP_ERR__INVALID_ARG;
  rd_kafka_AdminOptions_set_validate_only(asking->options, asking->ask->texts[2][0] != 0, asking->ask->why,
                                          sizeof asking->ask->why);
  for (uint32_t at = 3; at + 1 < asking->ask->count && !code; at += 2)
    code = rd_kafka_ConfigResource_set_config(resource, asking->ask->texts[at], asking->ask->texts[at + 1]);
  if (!code) rd_kafka_AlterConfigs(asking->rk, &resource, 1, asking->options, asking->queue);
  rd_kafka_ConfigResource_destroy(resource);
  return code;
}

// ---- Consumer groups ----

static rd_kafka_resp_err_t begin_groups(const struct asking *asking) {
  rd_kafka_ListConsumerGroups(asking->rk, asking->options, asking->queue);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_describe_groups(const struct asking *asking) {
  if (asking->ask->count > GROUPS_MAX) return refuse(asking, "more than 4096 groups");
  rd_kafka_DescribeConsumerGroups(asking->rk, (const char **)asking->ask->texts, asking->ask->count, asking->options,
                                  asking->queue);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_delete_group(const struct asking *asking) {
  rd_kafka_DeleteGroup_t *group = rd_kafka_DeleteGroup_new(asking->ask->texts[0]);
  rd_kafka_DeleteGroups(asking->rk, &group, 1, asking->options, asking->queue);
  rd_kafka_DeleteGroup_destroy(group);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_committed(const struct asking *asking) {
  const struct ask *ask = asking->ask;
  rd_kafka_topic_partition_list_t *list = ask->count > 1 ? positions_of(ask, 1, 2) : NULL;
  rd_kafka_ListConsumerGroupOffsets_t *offsets = rd_kafka_ListConsumerGroupOffsets_new(ask->texts[0], list);
  if (list) rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_ListConsumerGroupOffsets(asking->rk, &offsets, 1, asking->options, asking->queue);
  rd_kafka_ListConsumerGroupOffsets_destroy(offsets);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_commit(const struct asking *asking) {
  rd_kafka_topic_partition_list_t *list = positions_of(asking->ask, 1, 3);
  rd_kafka_AlterConsumerGroupOffsets_t *offsets = rd_kafka_AlterConsumerGroupOffsets_new(asking->ask->texts[0], list);
  rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_AlterConsumerGroupOffsets(asking->rk, &offsets, 1, asking->options, asking->queue);
  rd_kafka_AlterConsumerGroupOffsets_destroy(offsets);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t begin_forget(const struct asking *asking) {
  rd_kafka_topic_partition_list_t *list = positions_of(asking->ask, 1, 2);
  rd_kafka_DeleteConsumerGroupOffsets_t *offsets = rd_kafka_DeleteConsumerGroupOffsets_new(asking->ask->texts[0], list);
  rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_DeleteConsumerGroupOffsets(asking->rk, &offsets, 1, asking->options, asking->queue);
  rd_kafka_DeleteConsumerGroupOffsets_destroy(offsets);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

// ---- Access control ----

static const char *or_null(const char *text) {
  return *text ? text : NULL;
}

static rd_kafka_ResourceType_t resource_type(const char *name) {
  if (strcmp(name, "CLUSTER") == 0) return RD_KAFKA_RESOURCE_BROKER; // the same number in Kafka's protocol
  int type = RD_KAFKA_RESOURCE__CNT - 1;
  while (type > 0 && strcmp(rd_kafka_ResourceType_name((rd_kafka_ResourceType_t)type), name) != 0) type--;
  return (rd_kafka_ResourceType_t)type;
}

static rd_kafka_ResourcePatternType_t pattern_type(const char *name) {
  int type = RD_KAFKA_RESOURCE_PATTERN_TYPE__CNT - 1;
  while (type > 0 && strcmp(rd_kafka_ResourcePatternType_name((rd_kafka_ResourcePatternType_t)type), name) != 0) type--;
  return (rd_kafka_ResourcePatternType_t)type;
}

static rd_kafka_AclOperation_t operation_of(const char *name) {
  int operation = RD_KAFKA_ACL_OPERATION__CNT - 1;
  while (operation > 0 && strcmp(rd_kafka_AclOperation_name((rd_kafka_AclOperation_t)operation), name) != 0)
    operation--;
  return (rd_kafka_AclOperation_t)operation;
}

static rd_kafka_AclPermissionType_t permission_of(const char *name) {
  int type = RD_KAFKA_ACL_PERMISSION_TYPE__CNT - 1;
  while (type > 0 && strcmp(rd_kafka_AclPermissionType_name((rd_kafka_AclPermissionType_t)type), name) != 0) type--;
  return (rd_kafka_AclPermissionType_t)type;
}

// In a filter the empty text stands for any.
static rd_kafka_AclBinding_t *binding_of(const struct asking *asking, uint32_t at, bool filter) {
  char **texts = &asking->ask->texts[at], *why = asking->ask->why;
  size_t size = sizeof asking->ask->why;
  if (filter)
    return rd_kafka_AclBindingFilter_new(resource_type(texts[0]), or_null(texts[1]), pattern_type(texts[2]),
                                         or_null(texts[3]), or_null(texts[4]), operation_of(texts[5]),
                                         permission_of(texts[6]), why, size);
  return rd_kafka_AclBinding_new(resource_type(texts[0]), texts[1], pattern_type(texts[2]), texts[3], texts[4],
                                 operation_of(texts[5]), permission_of(texts[6]), why, size);
}

static rd_kafka_resp_err_t begin_acls(const struct asking *asking) {
  rd_kafka_AclBindingFilter_t *filter = binding_of(asking, 0, true);
  if (!filter) return RD_KAFKA_RESP_ERR__INVALID_ARG;
  rd_kafka_DescribeAcls(asking->rk, filter, asking->options, asking->queue);
  rd_kafka_AclBinding_destroy(filter);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

// Creates bindings, or deletes what filters match.
static rd_kafka_resp_err_t begin_with_bindings(const struct asking *asking, bool filter) {
  size_t count = asking->ask->count / ACL_TEXTS, made = 0;
  rd_kafka_AclBinding_t **bindings = calloc(count, sizeof(rd_kafka_AclBinding_t *));
  if (!bindings) return RD_KAFKA_RESP_ERR__INVALID_ARG;
  while (made < count && (bindings[made] = binding_of(asking, (uint32_t)made * ACL_TEXTS, filter))) made++;
  rd_kafka_resp_err_t code = made == count ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR__INVALID_ARG;
  if (!code && filter) rd_kafka_DeleteAcls(asking->rk, bindings, count, asking->options, asking->queue);
  if (!code && !filter) rd_kafka_CreateAcls(asking->rk, bindings, count, asking->options, asking->queue);
  rd_kafka_AclBinding_destroy_array(bindings, made);
  free(bindings);
  return code;
}

static rd_kafka_resp_err_t begin_create_acls(const struct asking *asking) {
  return begin_with_bindings(asking, false);
}

static rd_kafka_resp_err_t begin_delete_acls(const struct asking *asking) {
  return begin_with_bindings(asking, true);
}

// ---- All of them ----

static const struct shape shapes[] = {
    [KAFKA_ASK_METADATA] = {.group = 1, .blocks = true},
    [KAFKA_ASK_OFFSETS] = {.least = 3, .group = 3, .blocks = true},
    [KAFKA_ASK_CREATE_TOPIC] = {5, 1, false, RD_KAFKA_ADMIN_OP_CREATETOPICS, begin_create_topic},
    [KAFKA_ASK_DELETE_TOPIC] = {1, 1, false, RD_KAFKA_ADMIN_OP_DELETETOPICS, begin_delete_topic},
    [KAFKA_ASK_CREATE_PARTITIONS] = {2, 2, false, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, begin_create_partitions},
    [KAFKA_ASK_DELETE_RECORDS] = {3, 3, false, RD_KAFKA_ADMIN_OP_DELETERECORDS, begin_delete_records},
    [KAFKA_ASK_CONFIGS] = {2, 2, false, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, begin_configs},
    [KAFKA_ASK_ALTER_CONFIGS] = {3, 2, false, RD_KAFKA_ADMIN_OP_ALTERCONFIGS, begin_alter_configs},
    [KAFKA_ASK_GROUPS] = {0, 1, false, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, begin_groups},
    [KAFKA_ASK_DESCRIBE_GROUPS] = {1, 1, false, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, begin_describe_groups},
    [KAFKA_ASK_DELETE_GROUP] = {1, 1, false, RD_KAFKA_ADMIN_OP_DELETEGROUPS, begin_delete_group},
    [KAFKA_ASK_COMMITTED] = {1, 2, false, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, begin_committed},
    [KAFKA_ASK_COMMIT] = {4, 3, false, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, begin_commit},
    [KAFKA_ASK_FORGET] = {3, 2, false, RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS, begin_forget},
    [KAFKA_ASK_ACLS] = {ACL_TEXTS, ACL_TEXTS, false, RD_KAFKA_ADMIN_OP_DESCRIBEACLS, begin_acls},
    [KAFKA_ASK_CREATE_ACLS] = {ACL_TEXTS, ACL_TEXTS, false, RD_KAFKA_ADMIN_OP_CREATEACLS, begin_create_acls},
    [KAFKA_ASK_DELETE_ACLS] = {ACL_TEXTS, ACL_TEXTS, false, RD_KAFKA_ADMIN_OP_DELETEACLS, begin_delete_acls},
};

bool ask_blocks(enum kafka_ask what) {
  return shapes[what].blocks;
}

bool ask_is_whole(const struct kafka_question *question) {
  if (question->what < 0 || (size_t)question->what >= sizeof shapes / sizeof *shapes) return false;
  const struct shape *shape = &shapes[question->what];
  return question->count >= shape->least && (question->count - shape->least) % shape->group == 0;
}

rd_kafka_resp_err_t ask_begin(struct ask *ask, rd_kafka_t *rk, rd_kafka_queue_t *queue, int timeout_ms) {
  const struct shape *shape = &shapes[ask->what];
  struct asking asking = {.ask = ask, .rk = rk, .queue = queue};
  asking.options = rd_kafka_AdminOptions_new(rk, shape->op);
  rd_kafka_AdminOptions_set_request_timeout(asking.options, timeout_ms, ask->why, sizeof ask->why);
  // How long the broker itself may wait until all brokers know: not longer than we do.
  rd_kafka_AdminOptions_set_operation_timeout(asking.options, timeout_ms, ask->why, sizeof ask->why);
  rd_kafka_AdminOptions_set_opaque(asking.options, ask);
  ask->why[0] = 0; // some kinds of question have no operation timeout
  rd_kafka_resp_err_t code = shape->begin(&asking);
  if (code && !ask->why[0]) snprintf(ask->why, sizeof ask->why, "%s", rd_kafka_err2str(code));
  rd_kafka_AdminOptions_destroy(asking.options);
  return code;
}

// ---- What blocks: on a helper thread ----

static rd_kafka_resp_err_t run_topic(struct ask *ask, rd_kafka_t *rk, const char *name, int most_ms) {
  const struct rd_kafka_metadata *metadata;
  rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
  if (!topic) return RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
  rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, topic, &metadata, most_ms);
  if (!code) {
    if (ask->answer.len == 0)
      tell_metadata(&ask->answer, rk, metadata, most_ms);
    else
      tell_topics(&ask->answer, metadata);
    rd_kafka_metadata_destroy(metadata);
  }
  rd_kafka_topic_destroy(topic);
  return code;
}

static rd_kafka_resp_err_t run_metadata(struct ask *ask, rd_kafka_t *rk, int most_ms) {
  rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
  for (uint32_t i = 0; i < ask->count && !code; i++) code = run_topic(ask, rk, ask->texts[i], most_ms);
  if (ask->count > 0) {
    if (!code) text_puts(&ask->answer, "]}");
    return code;
  }
  const struct rd_kafka_metadata *metadata;
  code = rd_kafka_metadata(rk, 1, NULL, &metadata, most_ms);
  if (code) return code;
  tell_metadata(&ask->answer, rk, metadata, most_ms);
  text_puts(&ask->answer, "]}");
  rd_kafka_metadata_destroy(metadata);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t run_offsets(struct ask *ask, rd_kafka_t *rk, int most_ms) {
  rd_kafka_topic_partition_list_t *list = positions_of(ask, 0, 3);
  rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(rk, list, most_ms);
  if (!code) tell_positions(&ask->answer, list);
  rd_kafka_topic_partition_list_destroy(list);
  return code;
}

rd_kafka_resp_err_t ask_run(struct ask *ask, rd_kafka_t *rk, int most_ms) {
  ask->answer.len = 0; // of a try before
  return ask->what == KAFKA_ASK_METADATA ? run_metadata(ask, rk, most_ms) : run_offsets(ask, rk, most_ms);
}
