// SPDX-License-Identifier: Apache-2.0
/*
 * Connects again and again, from the first instruction of a container on. Static, so that nothing comes before main().
 *
 *   dial first SECONDS NAME=ADDRESS,PORT...   each in turn, until all that are waited for have succeeded, and HOLD_NS
 *                                             longer; then a line of JSON, which is the termination message too
 *   dial watch PACE_US ADDRESS,PORT           until standard input ends: a line for each change of what comes of it
 *
 * A name that begins with "never" is not waited for; where all do, the seconds are used up. Connections are closed by a reset, so that no port stays in
 * TIME_WAIT, and given up after GIVE_UP_MS, so that silence is not waited out.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TARGETS_MAX 8
#define GIVE_UP_MS 50
#define SECOND_NS 1000000000LL
#define HOLD_NS (SECOND_NS / 2)
/* As fast as can be at first; later slower, so that pods which start meanwhile have the processor. */
#define TIGHT_NS (SECOND_NS / 4)
#define PACE_US 5000

struct target {
	const char *name;
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	} to;
	socklen_t length;
	long long tries, successes, first_ns;
	int last_error;
};

static long long now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * SECOND_NS + time.tv_nsec;
}

static void parse(struct target *target, char *text)
{
	char *port = strrchr(text, ',');

	if (!port) {
		fprintf(stderr, "dial: no port in %s\n", text);
		exit(2);
	}
	*port++ = 0;
	memset(&target->to, 0, sizeof(target->to));
	if (inet_pton(AF_INET, text, &target->to.four.sin_addr) == 1) {
		target->to.four.sin_family = AF_INET;
		target->to.four.sin_port = htons(atoi(port));
		target->length = sizeof(target->to.four);
	} else if (inet_pton(AF_INET6, text, &target->to.six.sin6_addr) == 1) {
		target->to.six.sin6_family = AF_INET6;
		target->to.six.sin6_port = htons(atoi(port));
		target->length = sizeof(target->to.six);
	} else {
		fprintf(stderr, "dial: no address: %s\n", text);
		exit(2);
	}
}

/* Return 0 or an errno. */
static int attempt(const struct target *target)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int fd = socket(target->to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
	socklen_t length = sizeof(error);
	struct pollfd waited = { .fd = fd, .events = POLLOUT };

	if (fd < 0)
		return errno;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(fd, &target->to.any, target->length)) {
		error = errno;
		if (error == EINPROGRESS) {
			error = ETIMEDOUT;
			if (poll(&waited, 1, GIVE_UP_MS) == 1)
				getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
		}
	}
	close(fd);
	return error;
}

static int is_waited_for(const struct target *target)
{
	return strncmp(target->name, "never", strlen("never")) && !target->successes;
}

static void say(FILE *to, const struct target *targets, int count, long long begin)
{
	fputs("{", to);
	for (int i = 0; i < count; i++) {
		const struct target *one = &targets[i];

		fprintf(to, "%s\"%s\": {\"tries\": %lld, \"successes\": %lld, \"first_ms\": %.3f, \"last_error\": %d}",
			i ? ", " : "", one->name, one->tries, one->successes,
			one->successes ? (one->first_ns - begin) / 1e6 : -1.0, one->last_error);
	}
	fputs("}\n", to);
	fflush(to);
}

static int first(long long begin, int seconds, int count, char **words)
{
	struct target targets[TARGETS_MAX] = {};
	long long end = begin + seconds * SECOND_NS, now = begin, satisfied = 0;
	int hopes = 0;
	FILE *message;

	if (count > TARGETS_MAX)
		return 2;
	for (int i = 0; i < count; i++) {
		char *equals = strchr(words[i], '=');

		if (!equals)
			return 2;
		*equals = 0;
		targets[i].name = words[i];
		parse(&targets[i], equals + 1);
		hopes |= is_waited_for(&targets[i]);
	}
	while (now < end && (!satisfied || now < satisfied + HOLD_NS)) {
		int missing = 0;

		for (int i = 0; i < count; i++) {
			int error = attempt(&targets[i]);

			targets[i].tries++;
			if (error)
				targets[i].last_error = error;
			else if (!targets[i].successes++)
				targets[i].first_ns = now_ns();
			missing |= is_waited_for(&targets[i]);
		}
		now = now_ns();
		if (hopes && !missing && !satisfied)
			satisfied = now;
		if (now > begin + TIGHT_NS)
			usleep(PACE_US);
	}
	say(stdout, targets, count, begin);
	message = fopen("/dev/termination-log", "w");
	if (message)
		say(message, targets, count, begin);
	return 0;
}

static int watch(int pace_us, char *where)
{
	struct target target = {};
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	int before = -1;

	parse(&target, where);
	while (!poll(&input, 1, 0)) {
		long long begin = now_ns();
		int error = attempt(&target);

		if (error != before)
			printf("%lld %d\n", begin, error);
		fflush(stdout);
		before = error;
		usleep(pace_us);
	}
	return 0;
}

int main(int argc, char **argv)
{
	long long begin = now_ns();

	if (argc >= 4 && !strcmp(argv[1], "first"))
		return first(begin, atoi(argv[2]), argc - 3, argv + 3);
	if (argc == 4 && !strcmp(argv[1], "watch"))
		return watch(atoi(argv[2]), argv[3]);
	fprintf(stderr, "usage: dial first SECONDS NAME=ADDRESS,PORT... | dial watch PACE_US ADDRESS,PORT\n");
	return 2;
}
