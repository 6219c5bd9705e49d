// SPDX-License-Identifier: Apache-2.0
/*
 * Small UDP packets as fast as one thread makes them, without an interpreter in the way.
 *
 *   packets sink PORT                         takes what comes, IPv4, and reads none of it, until killed
 *   packets send ADDRESS PORT MILLISECONDS    sends IP packets of 64 bytes, a batch a system call
 *
 * `send` prints one line: packets sent, wall clock nanoseconds, CPU nanoseconds of the process. What arrived is for the
 * receiver's namespace to say (/proc/net/snmp, received or refused for want of room): what is sent may be dropped on
 * the way. A sink that read would take turns with the sender, and the switches between them would be measured.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define PAYLOAD (64 - 20 - 8)

static char payload[PAYLOAD];

static long long clock_ns(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void sink(int port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(fd, (struct sockaddr *)&here, sizeof(here))) {
		perror("packets sink");
		exit(1);
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = { .sin_family = AF_INET };
	long long begin, cpu, end, sent = 0;
	struct mmsghdr batch[BATCH] = { 0 };
	struct iovec part[BATCH];
	int fd, done;

	if (argc == 3 && !strcmp(argv[1], "sink"))
		sink(atoi(argv[2]));
	if (argc != 5 || strcmp(argv[1], "send")) {
		fprintf(stderr, "usage: packets sink PORT | packets send ADDRESS PORT MILLISECONDS\n");
		return 2;
	}
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	inet_pton(AF_INET, argv[2], &there.sin_addr);
	there.sin_port = htons(atoi(argv[3]));
	if (connect(fd, (struct sockaddr *)&there, sizeof(there))) {
		perror("packets send");
		return 1;
	}
	for (int i = 0; i < BATCH; i++) {
		part[i] = (struct iovec){ .iov_base = payload, .iov_len = sizeof(payload) };
		batch[i].msg_hdr = (struct msghdr){ .msg_iov = &part[i], .msg_iovlen = 1 };
	}
	begin = clock_ns(CLOCK_MONOTONIC);
	cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	end = begin + atoi(argv[4]) * 1000000LL;
	while (clock_ns(CLOCK_MONOTONIC) < end) {
		done = sendmmsg(fd, batch, BATCH, 0);
		if (done > 0)
			sent += done;
	}
	printf("{\"sent\": %lld, \"wall_ns\": %lld, \"cpu_ns\": %lld}\n", sent, clock_ns(CLOCK_MONOTONIC) - begin,
	       clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu);
	return 0;
}
