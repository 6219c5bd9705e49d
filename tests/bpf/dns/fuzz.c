// SPDX-License-Identifier: Apache-2.0
/*
 * Runs spoiled answers through a loaded program, as fast as the kernel takes them. Python makes the true ones and looks
 * at what was learned (fuzz.py).
 *
 *   fuzz PIN SEED COUNT < frames     each frame with its length before it, as a 16-bit number in this machine's order
 *
 * Ends with 1, and the frame in hex, if one does not pass or comes out changed.
 */
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FRAMES 64
#define FRAME_MAX 3000
#define MESSAGE_AT 42	/* behind the headers of Ethernet, IPv4 and UDP */
#define UDP_LENGTH_AT 38
#define PASSED 0xffffffffu

struct frame {
	uint16_t length;
	uint8_t bytes[FRAME_MAX];
};

static struct frame frames[FRAMES];
static uint64_t state;

static uint32_t draw(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % below;
}

static void spoil(struct frame *frame)
{
	uint32_t at = MESSAGE_AT + 2 + draw(frame->length - MESSAGE_AT - 2), left = frame->length - at, count;

	switch (draw(7)) {
	case 0:
		frame->bytes[at] = (uint8_t)draw(256);
		break;
	case 1:
		frame->bytes[at] ^= (uint8_t)(1 << draw(8));
		break;
	case 2:
		if (at > MESSAGE_AT + 14)
			frame->length = (uint16_t)at;
		break;
	case 3:
		count = 1 + draw(20);
		if (frame->length + count > FRAME_MAX)
			break;
		memmove(frame->bytes + at + count, frame->bytes + at, left);
		while (count--) {
			frame->bytes[at++] = (uint8_t)draw(256);
			frame->length++;
		}
		break;
	case 4:
		frame->bytes[MESSAGE_AT + 6] = (uint8_t)draw(3);
		frame->bytes[MESSAGE_AT + 7] = (uint8_t)draw(256);
		break;
	case 5:	/* a pointer, an end, a long label, or a length */
		frame->bytes[at] = (uint8_t[]){ 0xc0, 0x00, 0x3f, 0x04, 0x10, 0xff }[draw(6)];
		break;
	default:
		count = 1 + draw(8);
		if (count < left) {
			memmove(frame->bytes + at, frame->bytes + at + count, left - count);
			frame->length = (uint16_t)(frame->length - count);
		}
	}
}

static int run(int program, const struct frame *frame, uint8_t *out)
{
	union bpf_attr attr = {
		.test = {
			.prog_fd = (uint32_t)program,
			.data_in = (uintptr_t)frame->bytes,
			.data_size_in = frame->length,
			.data_out = (uintptr_t)out,
			.data_size_out = FRAME_MAX,
			.repeat = 1,
		},
	};

	if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)))
		return -1;
	return attr.test.retval == PASSED && attr.test.data_size_out == frame->length &&
			!memcmp(out, frame->bytes, frame->length) ? 0 : 1;
}

static int load(const char *pin)
{
	union bpf_attr attr = { .pathname = (uintptr_t)pin };

	return (int)syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
}

int main(int argc, char **argv)
{
	static struct frame frame;
	static uint8_t out[FRAME_MAX];
	uint64_t count, turn;
	int program, known = 0, changes, wrong;

	if (argc != 4)
		return 2;
	program = load(argv[1]);
	state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
	count = strtoull(argv[3], NULL, 10);
	while (known < FRAMES && fread(&frames[known].length, 2, 1, stdin) == 1) {
		if (frames[known].length > FRAME_MAX || fread(frames[known].bytes, frames[known].length, 1, stdin) != 1)
			return 2;
		known++;
	}
	if (program < 0 || !known)
		return 2;
	for (turn = 0; turn < count; turn++) {
		frame = frames[draw((uint32_t)known)];
		for (changes = (int)draw(6); changes > 0; changes--)
			spoil(&frame);
		frame.bytes[UDP_LENGTH_AT] = (uint8_t)((frame.length - 34) >> 8);
		frame.bytes[UDP_LENGTH_AT + 1] = (uint8_t)(frame.length - 34);
		wrong = run(program, &frame, out);
		if (wrong) {
			fprintf(stderr, "round %llu, %s: ", (unsigned long long)turn, wrong < 0 ? "not run" : "changed");
			for (int at = 0; at < frame.length; at++)
				fprintf(stderr, "%02x", frame.bytes[at]);
			fprintf(stderr, "\n");
			return 1;
		}
	}
	return 0;
}
