// SPDX-License-Identifier: Apache-2.0
/*
 * Times connect() as an application sees it, without an interpreter in the way.
 *
 *   connect serve PORT                        accepts and closes, IPv4, until killed
 *   connect tcp ADDRESS PORT COUNT            COUNT connections, reset on close so that no port stays in TIME_WAIT
 *   connect udp ADDRESS PORT COUNT            COUNT connect() calls on one UDP socket
 *
 * Prints one line: attempts, successes, errno of the last failure, median and minimum nanoseconds of a connect().
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int by_value(const void *left, const void *right)
{
	long long a = *(const long long *)left, b = *(const long long *)right;

	return (a > b) - (a < b);
}

static void serve(int port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 4096)) {
		perror("connect serve");
		exit(1);
	}
	for (;;)
		close(accept(listener, NULL, NULL));
}

static int fresh_socket(int type)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int fd = socket(AF_INET, type, 0);

	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = { .sin_family = AF_INET };
	int count, good = 0, failure = 0, type, fd = -1;
	long long *took, begin;

	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc != 5) {
		fprintf(stderr, "usage: connect serve PORT | connect tcp|udp ADDRESS PORT COUNT\n");
		return 2;
	}
	type = strcmp(argv[1], "udp") ? SOCK_STREAM : SOCK_DGRAM;
	inet_pton(AF_INET, argv[2], &there.sin_addr);
	there.sin_port = htons(atoi(argv[3]));
	count = atoi(argv[4]);
	took = calloc(count, sizeof(*took));
	if (type == SOCK_DGRAM)
		fd = fresh_socket(type);
	for (int i = 0; i < count; i++) {
		if (type == SOCK_STREAM)
			fd = fresh_socket(type);
		begin = now_ns();
		if (connect(fd, (struct sockaddr *)&there, sizeof(there)))
			failure = errno;
		else
			good++;
		took[i] = now_ns() - begin;
		if (type == SOCK_STREAM)
			close(fd);
	}
	qsort(took, count, sizeof(*took), by_value);
	printf("{\"attempts\": %d, \"successes\": %d, \"errno\": %d, \"median_ns\": %lld, \"min_ns\": %lld}\n",
	       count, good, failure, took[count / 2], took[0]);
	return 0;
}
