"""Which problems become Events, by whom, and how many at a time."""

from __future__ import annotations

import dataclasses

import pytest

from agent.model import resources
from agent.sources.kubernetes import api, notices

NODES = tuple(f"n{number}" for number in range(50))
POLICY = resources.ObjectRef("NetworkPolicy", "x", "p")
PROBLEM = resources.Problem(POLICY, "spec.ingress[0]", "is odd; write something else")


@dataclasses.dataclass
class Node:
    """One node's notices, and its clock."""

    name: str = "n0"
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        """Start."""
        self.notices = notices.Notices(node=self.name, now_s=self.now_s)

    def see(self, *problems: resources.Problem, nodes: tuple[str, ...] = ("n0",)) -> None:
        self.notices.see(problems, nodes=nodes, uids={POLICY: "u"})

    def send(self, most: int = 1000) -> list[notices.Notice]:
        """Send all that is due now."""
        sent: list[notices.Notice] = []
        while len(sent) < most:
            notice, _ = self.notices.due(self.now_s)
            if notice is None:
                break
            sent.append(notice)
            self.notices.sent(notice, self.now_s, count=notice.count + 1)
        return sent


def of(policy: str, number: int = 0) -> resources.Problem:
    return resources.Problem(resources.ObjectRef("NetworkPolicy", "x", policy), f"spec.ingress[{number}]", "is odd")


def test_a_problem_of_a_policy_is_told_with_its_path_reason_and_uid() -> None:
    node = Node()
    node.see(PROBLEM)
    (notice,) = node.send()
    assert (notice.policy, notice.uid, notice.count) == (POLICY, "u", 0)
    assert notice.message == "spec.ingress[0]: is odd; write something else"
    assert notice.name.startswith("p.")


@pytest.mark.parametrize("kind", [one.kind for one in api.POLICIES])
def test_problems_of_every_kind_of_policy_are_told(kind: str) -> None:
    node = Node()
    node.see(resources.Problem(resources.ObjectRef(kind, "x", "p"), "spec", "is odd"))
    assert [notice.policy.kind for notice in node.send()] == [kind]


def test_problems_of_other_objects_are_not_told() -> None:
    node = Node()
    node.see(resources.Problem(resources.ObjectRef("Pod", "x", "a"), "", "odd"))
    assert not node.send()
    assert node.notices.waiting == 0


def test_of_many_nodes_two_tell_and_each_tells_of_some() -> None:
    policies = [resources.ObjectRef("NetworkPolicy", "x", f"p{number}") for number in range(200)]
    ring = notices.Ring(NODES)
    tellers = {policy: [node for node in NODES if ring.tells(node, policy)] for policy in policies}
    assert all(len(found) == notices.TELLERS for found in tellers.values())
    assert len({node for found in tellers.values() for node in found}) > len(NODES) * 3 // 4


def test_of_two_nodes_both_tell_and_of_one_that_one() -> None:
    for nodes in (("n0",), ("n0", "n1")):
        assert all(notices.Ring(nodes).tells(node, POLICY) for node in nodes)


def test_the_order_of_the_nodes_does_not_matter_and_one_that_goes_changes_only_its_own() -> None:
    ring, turned = notices.Ring(NODES), notices.Ring(NODES[::-1])
    before = [node for node in NODES if ring.tells(node, POLICY)]
    assert before == [node for node in NODES if turned.tells(node, POLICY)]
    left = tuple(node for node in NODES if node != before[0])
    after = notices.Ring(left)
    assert before[1] in [node for node in left if after.tells(node, POLICY)]


def test_a_node_the_cluster_does_not_list_tells() -> None:
    assert notices.Ring(NODES).tells("new", POLICY)
    assert notices.Ring(()).tells("n0", POLICY)


def test_all_nodes_name_an_event_alike_and_another_policy_of_that_name_otherwise() -> None:
    assert notices.name_of(PROBLEM, "u") == notices.name_of(PROBLEM, "u")
    others = {notices.name_of(PROBLEM, "v"), notices.name_of(dataclasses.replace(PROBLEM, reason="else"), "u")}
    assert notices.name_of(PROBLEM, "u") not in others
    assert len(others) == 2


@pytest.mark.parametrize("name", ["p" * 253, "a." * 126 + "b", "p" * 235 + "-" * 10 + "p" * 8])
def test_an_events_name_is_one_the_server_takes(name: str) -> None:
    made = notices.name_of(resources.Problem(resources.ObjectRef("NetworkPolicy", "x", name), "", "odd"), "")
    assert len(made) <= notices.NAME_MAX
    assert "-." not in made
    assert ".." not in made


def test_a_message_is_one_printable_line_of_limited_length() -> None:
    hostile = resources.Problem(POLICY, "", "odd \x1b[2J\nname \u202e")
    assert notices.message_of(hostile) == r"odd \x1b[2J\nname \u202e"
    long = notices.message_of(resources.Problem(POLICY, "", "ü" * 2000))
    assert len(long.encode()) <= notices.MESSAGE_MAX
    assert long.endswith("...")


def test_what_was_told_is_told_again_after_a_while_with_its_count_and_not_before() -> None:
    node = Node()
    node.see(PROBLEM)
    assert len(node.send()) == 1
    node.see(PROBLEM)
    assert not node.send()
    node.now_s += notices.REPEAT_S
    assert [notice.count for notice in node.send()] == [1]
    node.now_s += notices.REPEAT_S
    assert [notice.count for notice in node.send()] == [2]


def test_a_problem_that_is_gone_is_told_no_more() -> None:
    node = Node()
    node.see(PROBLEM)
    node.see()
    assert not node.send()


def test_a_problem_that_comes_and_goes_in_a_loop_is_told_once() -> None:
    node = Node()
    for _ in range(100):
        node.see(PROBLEM)
        node.send()
        node.see()
        node.send()
        node.now_s += 1
    node.see(PROBLEM)
    assert not node.send()


def test_one_policy_gets_a_few_events_and_the_rest_of_its_problems_later() -> None:
    node = Node()
    node.see(*(of("p", number) for number in range(20)))
    assert len(node.send()) == notices.POLICY_TOKENS
    assert node.notices.waiting == 15
    node.see(*(of("p", number) for number in range(20)), of("q"))
    assert [notice.policy.name for notice in node.send()] == ["q"]
    _, wait_s = node.notices.due(node.now_s)
    assert 0 < wait_s <= notices.POLICY_EVERY_S
    node.now_s += wait_s
    assert len(node.send()) == 1


def test_a_policy_changed_in_a_loop_gets_no_more() -> None:
    node = Node()
    sent = 0
    for number in range(1000):
        node.see(of("p", number))
        sent += len(node.send())
        node.now_s += 1
    assert sent <= notices.POLICY_TOKENS + 1000 / notices.POLICY_EVERY_S


def test_all_policies_together_get_no_more_than_the_common_bucket() -> None:
    node = Node()
    node.see(*(of(f"p{number}") for number in range(500)))
    assert len(node.send()) == notices.TOKENS
    node.now_s += 100
    assert len(node.send()) == notices.TOKENS
    node.now_s += notices.EVERY_S
    assert len(node.send()) == 1


def test_what_failed_is_tried_again_later_and_later_and_costs_tokens_too() -> None:
    node = Node()
    node.see(PROBLEM)
    for expected in (10, 20, 40, 80):
        notice, _ = node.notices.due(node.now_s)
        assert notice is not None
        node.notices.failed(notice, node.now_s)
        assert node.notices.due(node.now_s)[1] == expected
        assert node.notices.waiting == 1
        node.now_s += expected
    for _ in range(20):
        notice, wait_s = node.notices.due(node.now_s)
        if notice is not None:
            node.notices.failed(notice, node.now_s)
        assert wait_s <= notices.RETRY_MOST_S
        node.now_s += wait_s


def test_what_is_remembered_is_bounded() -> None:
    node = Node()
    for first in range(0, 4 * notices.REMEMBERED, 64):
        node.see(*(of(f"p{number}") for number in range(first, first + 64)))
        node.send()
        node.now_s += 200
    node.see(*(of(f"q{number}") for number in range(2 * notices.REMEMBERED)))
    assert node.notices.waiting == notices.REMEMBERED
    assert len(node.notices._told) <= 2 * notices.REMEMBERED
    assert len(node.notices._buckets) <= 2 * notices.REMEMBERED + 1
