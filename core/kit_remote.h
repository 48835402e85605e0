// SPDX-License-Identifier: Apache-2.0
// A worker of a gateway that is a process of its own, driven by a spec: SLUICE_SPEC_SOCKET names the kit's socket. The
// clock stands until the kit moves it, names and Kafka's topics are the kit's tables, connections to services go to the
// kit's port, and it is told where they would have gone. All other sockets are real.
//
// The kit sends a line and gets one back: begin, turn, advance, name, address, mood, origin, topic, fails, produce,
// record. In between it is told of connections: "arrival FROM_PORT PORT ADDRESS NAME".
#pragma once

struct sockaddr_storage;
struct kit;
struct worker;

// NULL where the environment does not ask for it. Turns the loop until the kit has begun.
struct kit *kit_attach(struct worker *worker);
// After worker_free; nothing happens for NULL.
void kit_detach(struct kit *kit);
// The client that a connection of the kit stands for.
void kit_client_address(const struct kit *kit, struct sockaddr_storage *address);
