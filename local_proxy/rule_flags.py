"""The rules that come of the flags `--local`, `--mesh` and `--refuse`, and what `no_proxy` says of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from local_proxy.rule_text import parse_rule, registry_rules
from local_proxy.rules import Action, Rule, Rules


def rules_in(arguments: argparse.Namespace) -> tuple[Rule, ...]:
    """The user's rules.

    Raises:
        InvalidFieldError: one can't be read.
    """
    return tuple(parse_rule(Action(action), text) for action, text in arguments.rules)


def all_rules(user: Sequence[Rule], environ: Mapping[str, str]) -> Rules:
    """The user's and the built-in ones.

    Args:
        user: the user's.
        environ: the user's own environment, which may name package registries.
    """
    return Rules(tuple(user), registry_rules(environ))


def local_hosts(rules: Sequence[Rule]) -> tuple[str, ...]:
    """What `no_proxy` can say of these rules: the hosts and networks that are local.

    It knows no order and no ranges of ports: a rule of a range is left out, and so goes through the proxy.
    """
    entries: list[str] = []
    for rule in rules:
        if rule.action is not Action.LOCAL:
            continue
        host = _no_proxy_host(rule)
        ports = [ports.first for ports in rule.ports if ports.first == ports.last]
        if host is None or len(ports) != len(rule.ports):
            continue
        shown = f"[{host}]" if ports and ":" in host else host
        entries.extend([f"{shown}:{port}" for port in ports] or [host])
    return tuple(dict.fromkeys(entries))


def registry_hosts(rules: Rules) -> tuple[str, ...]:
    """The package registries that no rule of the user's sends elsewhere, for `no_proxy`.

    Without their ports, which many programs do not understand there.
    """
    found = (
        (host, rules.decide((host,), rule.network.network_address if rule.network else None, rule.ports[0].first))
        for rule in rules.registries
        if (host := _no_proxy_host(rule)) is not None
    )
    return tuple(dict.fromkeys(host for host, decision in found if decision.action is Action.LOCAL))


def _no_proxy_host(rule: Rule) -> str | None:
    if rule.network is not None:
        whole = rule.network.prefixlen == rule.network.max_prefixlen
        return str(rule.network.network_address if whole else rule.network)
    hosts = "*" if rule.hosts is None else rule.hosts
    if hosts.startswith("*."):  # programs agree on the leading dot alone
        hosts = hosts[1:]
    return hosts if "*" not in hosts or (hosts == "*" and not rule.ports) else None
