from local_proxy.environment import command_environment, intercepted_environment


def test_both_cases_of_every_proxy_variable_name_the_laptops_envoy():
    variables = command_environment({"PATH": "/bin"}, egress_port=15001, session="alice-1").variables
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        assert variables[name] == variables[name.upper()] == "http://127.0.0.1:15001"
    for name in ("no_proxy", "no_grpc_proxy"):
        assert variables[name] == variables[name.upper()] == "localhost,127.0.0.1,::1"
    assert variables["PATH"] == "/bin"


def test_the_command_is_told_its_session_and_environment():
    variables = command_environment({}, egress_port=1, session="alice-1", environment="alice").variables
    assert (variables["HAIRPIN_SESSION"], variables["HAIRPIN_ENV"]) == ("alice-1", "alice")


def test_local_hosts_are_added_once():
    local = command_environment({}, egress_port=1, session="s", local_hosts=["db.test", "localhost", "db.test"])
    assert local.variables["NO_PROXY"] == "localhost,127.0.0.1,::1,db.test"


def test_the_users_own_proxy_is_replaced_and_noted_without_its_password():
    inherited = {"HTTPS_PROXY": "http://me:secret@proxy.example:3128", "no_proxy": ".svc,10.0.0.0/8"}
    environment = command_environment(inherited, egress_port=15001, session="s")
    assert environment.variables["HTTPS_PROXY"] == "http://127.0.0.1:15001"
    first, second = environment.notes
    assert "HTTPS_PROXY=http://proxy.example:3128" in first
    assert "secret" not in first
    assert "no_proxy=.svc,10.0.0.0/8" in second
    assert "--local" in second


def test_without_proxy_variables_there_is_nothing_to_note():
    assert command_environment({"HOME": "/root"}, egress_port=15001, session="s").notes == ()


def test_a_nested_run_replaces_the_outer_ones_variables():
    outer = command_environment({}, egress_port=15001, session="outer").variables
    inner = command_environment(outer, egress_port=15002, session="inner").variables
    assert inner["http_proxy"] == "http://127.0.0.1:15002"
    assert inner["HAIRPIN_SESSION"] == "inner"


def test_a_choice_of_the_user_for_node_stands():
    assert (
        command_environment({"NODE_USE_ENV_PROXY": "0"}, egress_port=1, session="s").variables["NODE_USE_ENV_PROXY"]
        == "0"
    )


def test_an_intercepted_command_has_no_proxy_and_is_told_so():
    inherited = {"HTTPS_PROXY": "http://me:secret@proxy.example:3128", "no_proxy": ".svc", "PATH": "/bin"}
    environment = intercepted_environment(inherited, session="s", environment="alice")
    assert environment.variables == {"no_proxy": ".svc", "PATH": "/bin", "HAIRPIN_SESSION": "s", "HAIRPIN_ENV": "alice"}
    (note,) = environment.notes
    assert "HTTPS_PROXY=http://proxy.example:3128" in note
    assert "secret" not in note
