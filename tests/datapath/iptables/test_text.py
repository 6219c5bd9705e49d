"""The text says what the values say, in the order in which tables have to change."""

from __future__ import annotations

from agent.datapath.iptables import ruleset, text

RULE = ruleset.Rule(("-p", "tcp", "-m", "set", "--match-set", "NW4-N-0", "dst", "-g", "NW-PASS"), ("NW4-N-0",))
LOG = ruleset.Rule(("-j", "NFLOG", "--nflog-prefix", "nodewall 1 denied", "--nflog-group", "4710"))


def test_a_rule_names_the_version_of_its_set_and_carries_a_digest_before_its_target() -> None:
    written = text.rule_text(RULE, {"NW4-N-0": "b"})
    digest = text.comment_of(written)
    assert digest is not None
    assert len(digest) == 8
    assert written == (f'-p tcp -m set --match-set NW4-N-0b dst -m comment --comment "nw:{digest}" -g NW-PASS')


def test_only_words_that_are_sets_get_a_version() -> None:
    rule = ruleset.Rule(("-i", "x", "-m", "set", "--match-set", "x", "src", "-j", "RETURN"))
    assert "xa" not in text.rule_text(rule, {"x": "a"})


def test_a_digest_tells_versions_and_words_apart() -> None:
    texts = [text.rule_text(RULE, {"NW4-N-0": version}) for version in text.VERSIONS]
    texts += [text.rule_text(ruleset.Rule(words), {}) for words in (("-g", "a"), ("-j", "a"), ("-g", "b"))]
    assert len({text.comment_of(each) for each in texts}) == len(texts)


def test_words_with_spaces_are_quoted() -> None:
    assert '--nflog-prefix "nodewall 1 denied" --nflog-group 4710' in text.rule_text(LOG, {})


def test_comments_are_found_as_iptables_writes_them_and_others_are_not_ours() -> None:
    assert text.comment_of('-A x -m comment --comment "nw:01234567" -j DROP') == "01234567"
    assert text.comment_of("-A x -m comment --comment nw:01234567 -j DROP") == "01234567"
    assert text.comment_of("-A x -m comment --comment kubernetes -j DROP") is None


def test_a_transaction_changes_tables_in_order_and_chains_before_what_refers_to_them() -> None:
    changes = {
        ruleset.Table.SECURITY: text.TableChange(remove=("NW-OLD",)),
        ruleset.Table.FILTER: text.TableChange(
            write={"NW-A": ("-g NW-B",), "NW-B": ()},
            remove=("NW-C",),
            insert=(ruleset.Jump("FORWARD", "NW-A"),),
            delete=(ruleset.Jump("INPUT", "NW-C"),),
        ),
    }
    assert text.transaction(changes).splitlines() == [
        "*filter",
        ":NW-A - [0:0]",
        ":NW-B - [0:0]",
        ":NW-C - [0:0]",
        "-A NW-A -g NW-B",
        "-D INPUT -j NW-C",
        "-I FORWARD 1 -j NW-A",
        "-X NW-C",
        "COMMIT",
        "*security",
        ":NW-OLD - [0:0]",
        "-X NW-OLD",
        "COMMIT",
    ]
    assert text.transaction(changes).endswith("COMMIT\n")


def test_nothing_to_change_is_no_text() -> None:
    assert text.transaction({}) == ""
