"""Which of the target's variables the process gets: all but those that say what this machine is like.

First what the user includes, then what they exclude, then what stays local by default, then hairpin's own.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OURS = (
    "http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY", "NO_PROXY", "NO_GRPC_PROXY",
    "NODE_USE_ENV_PROXY", "HAIRPIN_*",
)  # fmt: skip
"""The way into the mesh: a pod's would lead elsewhere. Never taken; --env-set may set them."""

LOCAL = (
    # The machine, its user, their terminal.
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "MAIL", "EDITOR", "DISPLAY",
    "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TERM_*", "COLORTERM", "COLUMNS", "LINES",
    "TMPDIR", "TMP", "TEMP", "XDG_*", "DBUS_*", "SSH_*",
    # A pod's name is its own: with it, the process would take its lease, or its place in a cluster.
    "HOSTNAME", "HOST",
    # Languages: where this machine has them, and what a debugger or a build tool sets.
    "JAVA_HOME", "JAVA_VERSION", "JRE_HOME", "JDK_HOME", "CLASSPATH", "CATALINA_*", "MAVEN_*", "M2_HOME", "GRADLE_*",
    "GOROOT", "GOPATH", "GOBIN", "GOCACHE", "GOMODCACHE", "GOTOOLCHAIN", "GOLANG_*", "GOFLAGS",
    "NODE_PATH", "NODE_VERSION", "NVM_*", "YARN_*", "npm_*", "NPM_*",
    "PYTHON*", "VIRTUAL_ENV*", "CONDA_*", "PIP_*", "POETRY_*", "UV_*",
    "CARGO_HOME", "RUSTUP_*", "RUST_VERSION",
    "GEM_*", "BUNDLE_*", "RUBY_*", "RUBYLIB", "RUBYOPT", "PERL5LIB", "PHP_*", "PHPIZE_DEPS", "COMPOSER_*",
    "DOTNET_ROOT*", "DOTNET_VERSION", "ASPNET_VERSION",
    # The loader: a path of the image's would break every program here.
    "LD_*", "DYLD_*", "GCONV_PATH", "LOCPATH", "GLIBC_TUNABLES", "MALLOC_*",
    "KUBECONFIG", "DOCKER_HOST",
)  # fmt: skip
"""What stays as it is on this machine."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The user's globs; case counts in them."""

    include: tuple[str, ...] = ()
    """Taken, also of what stays local by default."""
    exclude: tuple[str, ...] = ()
    """Left local."""

    def takes(self, name: str) -> bool:
        """Whether the target's variable of this name is taken."""
        if _matches(name, OURS):
            return False
        return _matches(name, self.include) or not (_matches(name, self.exclude) or _matches(name, LOCAL))


@dataclass(frozen=True, slots=True)
class Chosen:
    """The target's variables, sorted out."""

    taken: dict[str, str]
    local: tuple[str, ...]
    """Names of those that stay as they are here."""


def choose(variables: Mapping[str, str], rules: Rules) -> Chosen:
    """Sort the target's variables out."""
    taken = {name: value for name, value in variables.items() if rules.takes(name)}
    return Chosen(taken, tuple(sorted(variables.keys() - taken.keys())))


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)
