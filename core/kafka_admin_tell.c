// SPDX-License-Identifier: Apache-2.0
// librdkafka's answers as JSON, for sluice.kafka.admin to decode. What an answer has not is left out of it.
#include <stdio.h>

#include "kafka_admin.h"

// Before each element of a list and each member of an object.
static void next_of(struct text *out) {
  char last = out->len > 0 ? out->data[out->len - 1] : '{';
  if (last != '{' && last != '[') text_puts(out, ",");
}

static void member(struct text *out, const char *name, const char *value) {
  if (!value) return;
  next_of(out);
  text_printf(out, "\"%s\":", name);
  text_json(out, value);
}

static void number(struct text *out, const char *name, int64_t value) {
  next_of(out);
  text_printf(out, "\"%s\":%lld", name, (long long)value);
}

static void truth(struct text *out, const char *name, bool value) {
  next_of(out);
  text_printf(out, "\"%s\":%s", name, value ? "true" : "false");
}

static void open_member(struct text *out, const char *name, const char *bracket) {
  next_of(out);
  text_printf(out, "\"%s\":%s", name, bracket);
}

static void open_element(struct text *out) {
  next_of(out);
  text_puts(out, "{");
}

static void failure(struct text *out, rd_kafka_resp_err_t code, const char *why) {
  if (!code) return;
  open_member(out, "error", "{");
  member(out, "code", rd_kafka_err2name(code));
  member(out, "text", why ? why : rd_kafka_err2str(code));
  text_puts(out, "}");
}

static void failure_of(struct text *out, const rd_kafka_error_t *error) {
  if (error) failure(out, rd_kafka_error_code(error), rd_kafka_error_string(error));
}

// ---- Metadata and positions ----

static void numbers(struct text *out, const char *name, const int32_t *list, int count) {
  open_member(out, name, "[");
  for (int i = 0; i < count; i++) text_printf(out, i ? ",%d" : "%d", (int)list[i]);
  text_puts(out, "]");
}

void tell_topics(struct text *out, const struct rd_kafka_metadata *metadata) {
  for (int i = 0; i < metadata->topic_cnt; i++) {
    const rd_kafka_metadata_topic_t *topic = &metadata->topics[i];
    open_element(out);
    member(out, "name", topic->topic);
    failure(out, topic->err, NULL);
    open_member(out, "partitions", "[");
    for (int j = 0; j < topic->partition_cnt; j++) {
      const rd_kafka_metadata_partition_t *partition = &topic->partitions[j];
      open_element(out);
      number(out, "id", partition->id);
      number(out, "leader", partition->leader);
      numbers(out, "replicas", partition->replicas, partition->replica_cnt);
      numbers(out, "isr", partition->isrs, partition->isr_cnt);
      failure(out, partition->err, NULL);
      text_puts(out, "}");
    }
    text_puts(out, "]}");
  }
}

// Up to the list of topics, which stays open.
void tell_metadata(struct text *out, rd_kafka_t *rk, const struct rd_kafka_metadata *metadata, int timeout_ms) {
  char *id = rd_kafka_clusterid(rk, timeout_ms);
  text_puts(out, "{");
  member(out, "id", id);
  if (id) rd_kafka_mem_free(rk, id);
  number(out, "controller", rd_kafka_controllerid(rk, timeout_ms));
  open_member(out, "brokers", "[");
  for (int i = 0; i < metadata->broker_cnt; i++) {
    open_element(out);
    number(out, "id", metadata->brokers[i].id);
    member(out, "host", metadata->brokers[i].host);
    number(out, "port", metadata->brokers[i].port);
    text_puts(out, "}");
  }
  text_puts(out, "]");
  open_member(out, "topics", "[");
  tell_topics(out, metadata);
}

static void positions(struct text *out, const char *name, const rd_kafka_topic_partition_list_t *list) {
  open_member(out, name, "[");
  for (int i = 0; list && i < list->cnt; i++) {
    const rd_kafka_topic_partition_t *position = &list->elems[i];
    open_element(out);
    member(out, "topic", position->topic);
    number(out, "partition", position->partition);
    number(out, "offset", position->offset);
    failure(out, position->err, NULL);
    text_puts(out, "}");
  }
  text_puts(out, "]");
}

void tell_positions(struct text *out, const rd_kafka_topic_partition_list_t *list) {
  text_puts(out, "{");
  positions(out, "positions", list);
  text_puts(out, "}");
}

// ---- Topics ----

// The error of what was asked about is the answer's.
static void fail(struct ask *ask, rd_kafka_resp_err_t code, const char *why) {
  ask->code = code;
  if (code && why) snprintf(ask->why, sizeof ask->why, "%s", why);
}

static void fail_of(struct ask *ask, const rd_kafka_error_t *error) {
  if (error) fail(ask, rd_kafka_error_code(error), rd_kafka_error_string(error));
}

// The one topic that was asked about.
static void tell_topic(struct ask *ask, const rd_kafka_topic_result_t *result) {
  fail(ask, rd_kafka_topic_result_error(result), rd_kafka_topic_result_error_string(result));
}

static void tell_delete_records(struct ask *ask, rd_kafka_event_t *event) {
  positions(&ask->answer, "positions",
            rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event)));
}

// ---- Configurations ----

static void entries(struct text *out, const char *name, const rd_kafka_ConfigEntry_t **list, size_t count) {
  open_member(out, name, "[");
  for (size_t i = 0; i < count; i++) {
    size_t synonym_count = 0;
    const rd_kafka_ConfigEntry_t **synonyms = NULL;
    open_element(out);
    member(out, "name", rd_kafka_ConfigEntry_name(list[i]));
    member(out, "value", rd_kafka_ConfigEntry_value(list[i]));
    member(out, "source", rd_kafka_ConfigSource_name(rd_kafka_ConfigEntry_source(list[i])));
    if (!rd_kafka_ConfigEntry_is_synonym(list[i])) {
      truth(out, "default", rd_kafka_ConfigEntry_is_default(list[i]) == 1);
      truth(out, "read_only", rd_kafka_ConfigEntry_is_read_only(list[i]) == 1);
      truth(out, "sensitive", rd_kafka_ConfigEntry_is_sensitive(list[i]) == 1);
      synonyms = rd_kafka_ConfigEntry_synonyms(list[i], &synonym_count);
      entries(out, "synonyms", synonyms, synonyms ? synonym_count : 0);
    }
    text_puts(out, "}");
  }
  text_puts(out, "]");
}

static void tell_resource(struct ask *ask, const rd_kafka_ConfigResource_t *resource) {
  fail(ask, rd_kafka_ConfigResource_error(resource), rd_kafka_ConfigResource_error_string(resource));
  size_t entry_count = 0;
  const rd_kafka_ConfigEntry_t **list = rd_kafka_ConfigResource_configs(resource, &entry_count);
  entries(&ask->answer, "entries", list, entry_count);
}

// ---- Consumer groups ----

static void tell_groups(struct ask *ask, rd_kafka_event_t *event) {
  const rd_kafka_ListConsumerGroups_result_t *result = rd_kafka_event_ListConsumerGroups_result(event);
  struct text *out = &ask->answer;
  size_t count;
  const rd_kafka_ConsumerGroupListing_t **list = rd_kafka_ListConsumerGroups_result_valid(result, &count);
  open_member(out, "groups", "[");
  for (size_t i = 0; i < count; i++) {
    open_element(out);
    member(out, "id", rd_kafka_ConsumerGroupListing_group_id(list[i]));
    member(out, "state", rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupListing_state(list[i])));
    truth(out, "simple", rd_kafka_ConsumerGroupListing_is_simple_consumer_group(list[i]) == 1);
    text_puts(out, "}");
  }
  text_puts(out, "]");
  // A broker that did not say which groups it coordinates: the list is not whole.
  const rd_kafka_error_t **errors = rd_kafka_ListConsumerGroups_result_errors(result, &count);
  if (count > 0) failure_of(out, errors[0]);
}

static void members(struct text *out, const rd_kafka_ConsumerGroupDescription_t *group) {
  size_t count = rd_kafka_ConsumerGroupDescription_member_count(group);
  open_member(out, "members", "[");
  for (size_t i = 0; i < count; i++) {
    const rd_kafka_MemberDescription_t *one = rd_kafka_ConsumerGroupDescription_member(group, i);
    const rd_kafka_MemberAssignment_t *assignment = rd_kafka_MemberDescription_assignment(one);
    open_element(out);
    member(out, "id", rd_kafka_MemberDescription_consumer_id(one));
    member(out, "client_id", rd_kafka_MemberDescription_client_id(one));
    member(out, "instance_id", rd_kafka_MemberDescription_group_instance_id(one));
    member(out, "host", rd_kafka_MemberDescription_host(one));
    positions(out, "assignment", assignment ? rd_kafka_MemberAssignment_partitions(assignment) : NULL);
    text_puts(out, "}");
  }
  text_puts(out, "]");
}

static void tell_describe_groups(struct ask *ask, rd_kafka_event_t *event) {
  struct text *out = &ask->answer;
  size_t count;
  const rd_kafka_ConsumerGroupDescription_t **list =
      rd_kafka_DescribeConsumerGroups_result_groups(rd_kafka_event_DescribeConsumerGroups_result(event), &count);
  open_member(out, "groups", "[");
  for (size_t i = 0; i < count; i++) {
    const rd_kafka_Node_t *coordinator = rd_kafka_ConsumerGroupDescription_coordinator(list[i]);
    open_element(out);
    member(out, "id", rd_kafka_ConsumerGroupDescription_group_id(list[i]));
    failure_of(out, rd_kafka_ConsumerGroupDescription_error(list[i]));
    member(out, "state", rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupDescription_state(list[i])));
    truth(out, "simple", rd_kafka_ConsumerGroupDescription_is_simple_consumer_group(list[i]) == 1);
    member(out, "assignor", rd_kafka_ConsumerGroupDescription_partition_assignor(list[i]));
    if (coordinator) number(out, "coordinator", rd_kafka_Node_id(coordinator));
    members(out, list[i]);
    text_puts(out, "}");
  }
  text_puts(out, "]");
}

static void tell_group(struct ask *ask, const rd_kafka_group_result_t *result) {
  fail_of(ask, rd_kafka_group_result_error(result));
  positions(&ask->answer, "positions", rd_kafka_group_result_partitions(result));
}

// ---- Access control ----

static void acls(struct text *out, const rd_kafka_AclBinding_t **list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    rd_kafka_ResourceType_t type = rd_kafka_AclBinding_restype(list[i]);
    open_element(out);
    member(out, "resource_type", type == RD_KAFKA_RESOURCE_BROKER ? "CLUSTER" : rd_kafka_ResourceType_name(type));
    member(out, "resource_name", rd_kafka_AclBinding_name(list[i]));
    member(out, "pattern_type", rd_kafka_ResourcePatternType_name(rd_kafka_AclBinding_resource_pattern_type(list[i])));
    member(out, "principal", rd_kafka_AclBinding_principal(list[i]));
    member(out, "host", rd_kafka_AclBinding_host(list[i]));
    member(out, "operation", rd_kafka_AclOperation_name(rd_kafka_AclBinding_operation(list[i])));
    member(out, "permission", rd_kafka_AclPermissionType_name(rd_kafka_AclBinding_permission_type(list[i])));
    failure_of(out, rd_kafka_AclBinding_error(list[i]));
    text_puts(out, "}");
  }
}

static void tell_acls(struct ask *ask, rd_kafka_event_t *event) {
  size_t count;
  const rd_kafka_AclBinding_t **list =
      rd_kafka_DescribeAcls_result_acls(rd_kafka_event_DescribeAcls_result(event), &count);
  open_member(&ask->answer, "acls", "[");
  acls(&ask->answer, list, count);
  text_puts(&ask->answer, "]");
}

static void tell_create_acls(struct ask *ask, rd_kafka_event_t *event) {
  size_t count;
  const rd_kafka_acl_result_t **list = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event), &count);
  open_member(&ask->answer, "results", "[");
  for (size_t i = 0; i < count; i++) {
    open_element(&ask->answer);
    failure_of(&ask->answer, rd_kafka_acl_result_error(list[i]));
    text_puts(&ask->answer, "}");
  }
  text_puts(&ask->answer, "]");
}

static void tell_delete_acls(struct ask *ask, rd_kafka_event_t *event) {
  size_t count;
  const rd_kafka_DeleteAcls_result_response_t **list =
      rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(event), &count);
  open_member(&ask->answer, "acls", "[");
  for (size_t i = 0; i < count; i++) {
    const rd_kafka_error_t *error = rd_kafka_DeleteAcls_result_response_error(list[i]);
    if (!ask->code) fail_of(ask, error);
    size_t matching;
    const rd_kafka_AclBinding_t **gone = rd_kafka_DeleteAcls_result_response_matching_acls(list[i], &matching);
    acls(&ask->answer, gone, matching);
  }
  text_puts(&ask->answer, "]");
}

// ---- All of them ----

// Each has one of the last four. What librdkafka calls a result is its event by another name.
static const struct teller {
  enum kafka_ask what;
  rd_kafka_event_type_t type;
  void (*tell)(struct ask *ask, rd_kafka_event_t *event);
  const rd_kafka_topic_result_t **(*topics)(const rd_kafka_event_t *event, size_t *count);
  const rd_kafka_ConfigResource_t **(*resources)(const rd_kafka_event_t *event, size_t *count);
  const rd_kafka_group_result_t **(*groups)(const rd_kafka_event_t *event, size_t *count);
} tellers[] = {
    {KAFKA_ASK_CREATE_TOPIC, RD_KAFKA_EVENT_CREATETOPICS_RESULT, .topics = rd_kafka_CreateTopics_result_topics},
    {KAFKA_ASK_DELETE_TOPIC, RD_KAFKA_EVENT_DELETETOPICS_RESULT, .topics = rd_kafka_DeleteTopics_result_topics},
    {KAFKA_ASK_CREATE_PARTITIONS, RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT,
     .topics = rd_kafka_CreatePartitions_result_topics},
    {KAFKA_ASK_DELETE_RECORDS, RD_KAFKA_EVENT_DELETERECORDS_RESULT, .tell = tell_delete_records},
    {KAFKA_ASK_CONFIGS, RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT, .resources = rd_kafka_DescribeConfigs_result_resources},
    {KAFKA_ASK_ALTER_CONFIGS, RD_KAFKA_EVENT_ALTERCONFIGS_RESULT, .resources = rd_kafka_AlterConfigs_result_resources},
    {KAFKA_ASK_GROUPS, RD_KAFKA_EVENT_LISTCONSUMERGROUPS_RESULT, .tell = tell_groups},
    {KAFKA_ASK_DESCRIBE_GROUPS, RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT, .tell = tell_describe_groups},
    {KAFKA_ASK_DELETE_GROUP, RD_KAFKA_EVENT_DELETEGROUPS_RESULT, .groups = rd_kafka_DeleteGroups_result_groups},
    {KAFKA_ASK_COMMITTED, RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT,
     .groups = rd_kafka_ListConsumerGroupOffsets_result_groups},
    {KAFKA_ASK_COMMIT, RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT,
     .groups = rd_kafka_AlterConsumerGroupOffsets_result_groups},
    {KAFKA_ASK_FORGET, RD_KAFKA_EVENT_DELETECONSUMERGROUPOFFSETS_RESULT,
     .groups = rd_kafka_DeleteConsumerGroupOffsets_result_groups},
    {KAFKA_ASK_ACLS, RD_KAFKA_EVENT_DESCRIBEACLS_RESULT, .tell = tell_acls},
    {KAFKA_ASK_CREATE_ACLS, RD_KAFKA_EVENT_CREATEACLS_RESULT, .tell = tell_create_acls},
    {KAFKA_ASK_DELETE_ACLS, RD_KAFKA_EVENT_DELETEACLS_RESULT, .tell = tell_delete_acls},
};

static void tell(const struct teller *teller, struct ask *ask, rd_kafka_event_t *event) {
  size_t count = 0;
  if (teller->tell) {
    teller->tell(ask, event);
  } else if (teller->topics) {
    const rd_kafka_topic_result_t **topics = teller->topics(event, &count);
    if (count > 0) tell_topic(ask, topics[0]);
  } else if (teller->resources) {
    const rd_kafka_ConfigResource_t **resources = teller->resources(event, &count);
    if (count > 0) tell_resource(ask, resources[0]);
  } else {
    const rd_kafka_group_result_t **groups = teller->groups(event, &count);
    if (count > 0) tell_group(ask, groups[0]);
  }
}

bool tell_event(struct ask *ask, rd_kafka_event_t *event) {
  rd_kafka_event_type_t type = rd_kafka_event_type(event);
  for (size_t i = 0; i < sizeof tellers / sizeof *tellers; i++) {
    if (tellers[i].type != type || tellers[i].what != ask->what) continue;
    ask->code = rd_kafka_event_error(event);
    if (ask->code) {
      snprintf(ask->why, sizeof ask->why, "%s", rd_kafka_event_error_string(event));
      return true;
    }
    text_puts(&ask->answer, "{");
    tell(&tellers[i], ask, event);
    text_puts(&ask->answer, "}");
    return true;
  }
  return false;
}
