import errno
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from local_proxy.intercept.listening import MOST_SOCKETS, Attempt, Holder, Moves, OwnSocket

IN_USE, FORBIDDEN = Attempt(errno.EADDRINUSE), Attempt(errno.EACCES)


class Script:
    """A socket whose kernel says what a test wrote down, and a transcript of what was asked."""

    def __init__(self, *answers, debugged=()):
        self.answers, self.asked, self.debugged = list(answers), [], debugged

    def attempt(self, port):
        self.asked.append(port)
        answer = self.answers.pop(0)
        assert isinstance(answer, Attempt), f"{answer} was to be asked for"
        return Attempt(0, port) if answer == OK else answer

    def holder(self, port):
        self.asked.append(f"who has {port}?")
        answer = self.answers.pop(0)
        assert isinstance(answer, Holder), f"{answer} was to be asked for"
        return answer

    def debugs(self, port):
        return port in self.debugged


OK = Attempt(0, -1)


def bound(moves, port, *answers, **options):
    """The errno, and what was asked of the kernel."""
    script = Script(*answers, **options)
    error = moves.bind(port, script)
    assert not script.answers, "it was not asked for all of it"
    return errno.errorcode.get(error, error), script.asked


def moved(port=8080, real=40001):
    moves = Moves()
    assert bound(moves, port, IN_USE, Holder.STRANGER, Attempt(0, real))[0] == 0
    return moves


def test_a_free_port_is_bound_and_nothing_else_is_asked():
    moves = Moves()
    assert bound(moves, 8080, OK) == (0, [8080])
    assert (bool(moves), moves.real(8080), moves.believed(8080)) == (False, None, 8080)


def test_a_strangers_port_is_moved_to_a_free_one():
    moves = Moves()
    assert bound(moves, 8080, IN_USE, Holder.STRANGER, Attempt(0, 40001)) == (0, [8080, "who has 8080?", 0])
    assert (moves.real(8080), moves.believed(40001), moves.why(8080)) == (40001, 8080, "which is taken here")


def test_a_privileged_port_is_moved():
    moves = Moves()
    assert bound(moves, 80, FORBIDDEN, Attempt(0, 40001)) == (0, [80, 0])
    assert (moves.believed(40001), moves.why(80)) == (80, "which needs root here")


@pytest.mark.parametrize("refusal", [IN_USE, FORBIDDEN])
def test_where_no_port_is_free_the_first_error_stays(refusal):
    who = [Holder.STRANGER] if refusal == IN_USE else []
    assert bound(Moves(), 80, refusal, *who, Attempt(errno.ENOBUFS))[0] == errno.errorcode[refusal.error]


def test_the_commands_own_port_stays_in_use():
    assert bound(Moves(), 8080, IN_USE, Holder.OURS) == ("EADDRINUSE", [8080, "who has 8080?"])


@pytest.mark.parametrize("error", ["EADDRNOTAVAIL", "EINVAL", "ENETDOWN"])
def test_other_errors_are_the_programs(error):
    assert bound(Moves(), 8080, Attempt(getattr(errno, error))) == (error, [8080])


def test_who_has_just_gone_leaves_the_port():
    moves = Moves()
    assert bound(moves, 8080, IN_USE, Holder.NOBODY, OK) == (0, [8080, "who has 8080?", 8080])
    assert moves.real(8080) is None


def test_what_nobody_holds_and_nobody_gets_is_moved():
    """Someone has bound it and does not listen; or another command's connections have not timed out."""
    assert bound(Moves(), 8080, IN_USE, Holder.NOBODY, IN_USE, Attempt(0, 40001))[0] == 0


def test_connections_that_the_commands_own_server_left_keep_the_port_in_use():
    moves = Moves()
    bound(moves, 8080, OK)
    assert bound(moves, 8080, IN_USE, Holder.NOBODY, IN_USE)[0] == "EADDRINUSE"


def test_a_debuggers_port_is_not_moved():
    assert bound(Moves(), 9229, IN_USE, Holder.STRANGER, debugged=(9229,))[0] == "EADDRINUSE"


def test_a_moved_port_is_opened_anew_at_the_same_place():
    moves = moved()
    assert bound(moves, 8080, OK) == (0, [40001])
    assert moves.real(8080) == 40001


def test_two_of_the_commands_sockets_on_a_moved_port_are_the_kernels_to_judge():
    moves = moved()
    assert bound(moves, 8080, IN_USE, Holder.OURS) == ("EADDRINUSE", [40001, "who has 40001?"])
    assert bound(moves, 8080, OK) == (0, [40001])  # SO_REUSEPORT


def test_a_moved_port_that_a_stranger_got_meanwhile_is_moved_again():
    moves = moved()
    strangers = [IN_USE, Holder.STRANGER, IN_USE, Holder.STRANGER, Attempt(0, 40002)]
    assert bound(moves, 8080, *strangers)[0] == 0
    assert (moves.real(8080), moves.believed(40002)) == (40002, 8080)


def test_a_port_that_is_its_own_again_is_not_moved_any_more():
    moves = moved()
    assert bound(moves, 8080, IN_USE, Holder.STRANGER, OK)[0] == 0
    assert (moves.real(8080), moves.believed(8080)) == (None, 8080)


def test_a_server_on_any_port_that_gets_a_moved_one_believes_what_is_real():
    moves = moved()
    assert bound(moves, 0, Attempt(0, 40001)) == (0, [0])
    assert (moves.believed(40001), moves.real(8080)) == (40001, None)


def own(address, *, port=80, inode=1, dual=False):
    return OwnSocket(inode, ip_address(address), port, dual)


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        (own("127.0.0.1"), own("127.0.0.1"), True),
        (own("127.0.0.1"), own("127.0.0.2"), False),
        (own("127.0.0.1"), own("0.0.0.0"), True),
        (own("127.0.0.1"), own("::", dual=True), True),
        (own("127.0.0.1"), own("::"), False),
        (own("127.0.0.1"), own("::1", dual=True), False),
        (own("::1"), own("::"), True),
        (own("::", dual=True), own("0.0.0.0"), True),
    ],
)
def test_which_addresses_exclude_each_other(one, other, excluded):
    assert one.excludes(other) is excluded
    assert other.excludes(one) is excluded


def test_rivals_are_those_of_the_port_that_live():
    moves = Moves()
    for inode, port in ((1, 80), (2, 80), (3, 81)):
        moves.remember(own("127.0.0.1", port=port, inode=inode))
    assert moves.rivals(own("0.0.0.0", inode=9)) == {1, 2}
    assert moves.rivals(own("0.0.0.0", inode=2)) == {1}, "it is no rival of its own"
    moves.forget({1})
    assert moves.rivals(own("0.0.0.0", inode=9)) == {2}


def test_only_so_many_sockets_are_remembered():
    moves = Moves()
    for inode in range(MOST_SOCKETS + 10):
        moves.remember(own("127.0.0.1", inode=inode))
    assert len(moves.rivals(own("127.0.0.1", inode=-1))) == MOST_SOCKETS


PORTS, REAL = st.sampled_from([80, 8080, 8081, 9000]), range(50000, 50006)


class Machine(RuleBasedStateMachine):
    """A kernel with few ports: strangers and the command come and go, and what is believed must hold."""

    def __init__(self):
        super().__init__()
        self.moves, self.ours, self.strangers = Moves(), {}, set()

    @rule(port=st.one_of(PORTS, st.sampled_from(REAL)))
    def stranger_comes(self, port):
        if port not in self.ours:
            self.strangers.add(port)

    @rule(port=st.one_of(PORTS, st.sampled_from(REAL)))
    def stranger_goes(self, port):
        self.strangers.discard(port)

    @rule(port=PORTS)
    def command_closes(self, port):
        self.ours = {real: believed for real, believed in self.ours.items() if believed != port}

    @rule(port=st.one_of(PORTS, st.just(0)))
    def command_binds(self, port):
        before = dict(self.ours)
        error = self.moves.bind(port, self)
        gained = [real for real in self.ours if real not in before]
        if port and port in before.values():
            assert error == errno.EADDRINUSE, "two of the command's sockets on one port"
        elif error:
            assert not any(real not in self.strangers and real not in before for real in REAL), "one was free"
        if error:
            assert not gained
        else:
            (real,) = gained
            self.ours[real] = port or real
            assert self.moves.believed(real) == (port or real)

    @invariant()
    def what_is_believed_is_right(self):
        for real, believed in self.ours.items():
            assert self.moves.believed(real) == believed
            if real != believed:
                assert self.moves.real(believed) == real

    def attempt(self, port):
        if port == 80:
            return FORBIDDEN
        free = [port] if port else [real for real in REAL if real not in self.ours and real not in self.strangers]
        if not free or free[0] in self.ours or free[0] in self.strangers:
            return IN_USE
        self.ours[free[0]] = None
        return Attempt(0, free[0])

    def holder(self, port):
        return Holder.OURS if port in self.ours else Holder.STRANGER if port in self.strangers else Holder.NOBODY

    def debugs(self, port):
        return False


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=30)


@given(st.lists(st.tuples(PORTS, st.booleans()), max_size=20))
def test_without_strangers_nothing_is_ever_moved(binds):
    machine = Machine()
    for port, close in binds:
        if port != 80:
            machine.command_binds(port)
        if close:
            machine.command_closes(port)
    assert not machine.moves
