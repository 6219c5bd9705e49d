// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The decisions of the shipped headers as a program that BPF_PROG_TEST_RUN can run (it refuses cgroup programs, and
 * netfilter programs see only the loopback interface). Never shipped.
 *
 * The packet is 14 bytes of padding, a question and room for the answer. The return value is enum nw_verdict, or 0
 * where the socket layer says nothing.
 */
#include "engine.h"

#include "connect.h"
#include "decide.h"

enum question_kind { ASK_FORWARD = 1, ASK_LOCAL = 2, ASK_CONNECT = 3 };

struct question {
	__u64 cookie;		/* ASK_CONNECT */
	__u32 kind;
	struct flow flow;
};

struct answer {
	struct decision decision;
	struct decision other;	/* ASK_FORWARD, allowed: what the server's side says */
};

#define QUESTION_AT 14
#define ANSWER_AT (QUESTION_AT + sizeof(struct question))

static __always_inline int answer_forward(const struct flow *flow, const struct moment *now, struct answer *answer)
{
	int verdict = decide_forward(flow, now->slot, &answer->decision, &answer->other);

	if (answer->decision.verdict != NW_DROPPED && verdict == NW_DROPPED)
		answer->decision = answer->other;
	return verdict;
}

static __always_inline int answer_of(const struct question *question, const struct moment *now,
				     struct answer *answer)
{
	switch (question->kind) {
	case ASK_FORWARD:
		return answer_forward(&question->flow, now, answer);
	case ASK_LOCAL:
		decide_end(&answer->decision, &question->flow, NW_EGRESS, now->slot);
		return answer->decision.verdict;
	default:
		if (!decide_connect(&answer->decision, &question->flow, question->cookie, now->slot))
			return 0;
		return answer->decision.verdict;
	}
}

SEC("tc") int nw_entry(struct __sk_buff *skb)
{
	struct question question;
	struct answer answer = {};
	struct moment now;
	int verdict;

	if (!moment_read(&now) || bpf_skb_load_bytes(skb, QUESTION_AT, &question, sizeof(question)))
		return -1;
	verdict = answer_of(&question, &now, &answer);
	bpf_skb_store_bytes(skb, ANSWER_AT, &answer, sizeof(answer), 0);
	return verdict;
}

char program_license[] SEC("license") = "Dual BSD/GPL";
