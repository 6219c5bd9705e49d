"""`python -m tests.bpf.dns load|cost|fuzz|streams [--rounds N] [--seed N]`: the learner on the kernel this runs on.

load: load both variants, print what the verifier looked at, and have each learn from one answer; ends with 1 if neither
can be loaded, one that is does not learn, or the verifier looks at more than half a million instructions (F31).
cost: what an answer takes, in nanoseconds. fuzz: spoiled answers by the million (F14), and behind them, as `streams`
does alone, a thousandth as many TCP streams of such answers in segments of every kind, which must teach what each
answer teaches (F28).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import subprocess
import sys

from agent import errors
from agent.datapath.bpf import dns_loader, syscalls
from tests.bpf.dns import costs, fuzz, rig, segmented, wire

BPFFS = pathlib.Path("/sys/fs/bpf")
MOST_INSTRUCTIONS = 500_000
REPEAT, ROUNDS = 100_000, 7
STREAMS_EACH = 1000
"""Answers by UDP for each stream."""
LONG = ".".join(["a" * 50] * 4 + ["net"])


def load(variant: dns_loader.Variant) -> bool:
    """Load and try one variant; tell whether it works."""
    with rig.loaded(BPFFS, variant) as learner:
        learner.clear()
        learned = learner.resolve(wire.answer(rig.NAME, wire.address(costs.FIRST), wire.address(rig.POD6)))
        both = learner.resolve(wire.answer(rig.NAME, wire.address(costs.FIRST + 1)), tcp=True)
        print(f"{variant.value}: {len(learned)} of 2 addresses learned by UDP, {len(both) - len(learned)} of 1 by TCP")
        most = 0
        for name, program in learner.programs.items():
            told = syscalls.program_info(program)
            most = max(most, told.verified_instructions)
            print(f"  {name:15} {told.verified_instructions:>7,} instructions, {told.jited_bytes:>6,} bytes")
    return len(both) == 3 and most <= MOST_INSTRUCTIONS


def loads() -> int:
    """Do so for both; return the exit status."""
    print(f"Linux {platform.release()}")
    wrong, worked = False, False
    for variant in dns_loader.Variant:
        try:
            works = load(variant)
        except errors.ProgramRejected as error:
            print(f"{variant.value}: refused\n{error}")
        else:
            worked, wrong = worked or works, wrong or not works
    return 1 if wrong or not worked else 0


def cost() -> int:
    """Print what packets cost."""
    for variant in dns_loader.Variant:
        with rig.loaded(BPFFS, variant) as learner:
            learner.clear()
            learner.know("net", more=rig.API)
            with costs.asking(learner, variant) as programs:
                print(f"{variant.value} ({REPEAT:,} runs, median of {ROUNDS}), ns")
                frames = {
                    **{f"{count} A": costs.reply_of(count) for count in costs.RECORDS},
                    "no rule": costs.reply_of(1, name="www.example.org"),
                    "1 A, a name of 207 bytes": costs.reply_of(1, name=LONG),
                }
                for what, frame in frames.items():
                    print(f"  {what:26} {costs.answer_ns(programs, frame, repeat=REPEAT, rounds=ROUNDS):>6.0f}")
                for records, share in ((1, 1.0), (1, 0.5), (32, 1.0), (32, 0.5), (200, 0.5)):
                    what = f"{records} A by TCP, {'whole' if share == 1.0 else 'its second half'}"
                    taken = costs.segment_ns(learner, programs, records, share, repeat=REPEAT, rounds=ROUNDS)
                    print(f"  {what:26} {taken:>6.0f}")
                other = costs.reply_of(1, port=443)
                for name in (dns_loader.ANSWER, dns_loader.QUERY):
                    taken = costs.nanoseconds(learner.programs[name], other, repeat=REPEAT, rounds=ROUNDS)
                    print(f"  {name + ', not DNS':26} {taken:>6.0f}")
                taken = costs.nanoseconds(programs[costs.ASK], costs.reply_of(1), repeat=REPEAT, rounds=ROUNDS)
                print(f"  {'to remember a question':26} {taken:>6.0f}")
    return 0


def spoiled(rounds: int, seed: int) -> int:
    """Run a campaign in each variant; return the exit status."""
    strange = 0
    for variant in dns_loader.Variant:
        with rig.loaded(BPFFS, variant) as learner:
            found = fuzz.run(learner, variant, rounds=rounds, seed=seed)
        strange += found.strange
        rate = rounds / found.seconds
        print(f"{variant.value}: {rounds:,} messages in {found.seconds:.0f} s ({rate:,.0f}/s), all passed unchanged")
        print(f"  {found.addresses} addresses known at the end, {found.strange} strange; counted: {found.counted}")
    return 1 if strange else 0


def streams(count: int, seed: int) -> int:
    """Run streams in each variant; return the exit status."""
    wrong = 0
    for variant in dns_loader.Variant:
        with rig.loaded(BPFFS, variant) as learner:
            found = segmented.run(learner, streams=count, seed=seed)
        wrong += len(found.wrong)
        print(f"{variant.value}: {found.streams:,} streams of {found.segments:,} segments, {found.dropped:,} dropped")
        print(f"  taught {found.taught:,} addresses in {found.seconds:.0f} s, {len(found.wrong)} streams wrong")
        print("".join(f"  {one}\n" for one in found.wrong[:10]), end="")
    return 1 if wrong else 0


def main() -> int:
    """Read the verb; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bpf.dns", description=__doc__)
    parser.add_argument("verb", choices=["load", "cost", "fuzz", "streams"])
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True)
    match given.verb:
        case "load":
            return loads()
        case "cost":
            return cost()
        case "streams":
            return streams(given.rounds, given.seed)
        case _:
            return spoiled(given.rounds, given.seed) or streams(given.rounds // STREAMS_EACH, given.seed)


if __name__ == "__main__":
    sys.exit(main())
