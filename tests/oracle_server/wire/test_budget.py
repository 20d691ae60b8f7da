"""The budget of a key that is in use, changed by the operator."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from protos.mirage.v1 import admin_pb2
from tests.fixtures import Command, Start
from tests.serving import Caller, Server, inputs, refused


def set_budget(caller: Caller, rows: int | None) -> None:
    caller.server.admin.SetBudget(admin_pb2.SetBudgetRequest(key_id=caller.key_id, budget=rows))


def told(call: object) -> tuple[str | None, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]
    return (said := refused(caught.value)).reason, said.sentence


def test_raised_lowered_and_taken_away(server: Server) -> None:
    caller = server.new_key(budget=5)
    caller.predict(inputs(5))
    reason, sentence = told(lambda: caller.predict(inputs(1)))
    assert (reason, "1 rows asked and 0 of 5 left" in sentence) == ("BUDGET_SPENT", True)
    set_budget(caller, 8)
    assert caller.describe().contract.budget == 8
    assert caller.predict(inputs(2)).receipt.budget_left == 1
    assert told(lambda: set_budget(caller, 6)) == (
        "BAD_CONTRACT", "7 rows are spent or under way: a budget cannot be 6, take more",
    )  # fmt: skip
    assert caller.describe().budget_left == 1, "what was refused changed nothing"
    set_budget(caller, 7)
    assert told(lambda: caller.predict(inputs(1)))[0] == "BUDGET_SPENT"
    set_budget(caller, None)
    assert not caller.describe().contract.HasField("budget")
    assert caller.predict(inputs(60)).receipt.spent == 67


def test_no_such_key_and_no_such_number(server: Server, command: Command) -> None:
    caller = server.new_key(budget=3)
    with pytest.raises(grpc.RpcError) as caught:
        server.admin.SetBudget(admin_pb2.SetBudgetRequest(key_id="nobody", budget=3))
    assert refused(caught.value).reason == "NO_SUCH_KEY"
    assert told(lambda: set_budget(caller, 1 << 63)) == (
        "BAD_CONTRACT", f"budget={1 << 63} must be a whole number below 2**63",
    )  # fmt: skip
    assert command("keys", "budget", "--root", server.root, caller.key_id, "-1")[0] == 2
    assert caller.describe().contract.budget == 3


def test_the_command_works_with_and_without_a_server(start: Start, command: Command) -> None:
    server = start()
    caller = server.new_key(budget=4)
    caller.predict(inputs(4))
    words = ("keys", "budget", "--root", server.root, caller.key_id)
    assert command(*words, 1000) == (0, f"{caller.key_id} may be answered 1,000 rows in all\n")
    server.kill()
    assert command(*words, 3) == (1, "Error: 4 rows are spent or under way: a budget cannot be 3, take more\n")
    assert command(*words, 6) == (0, f"{caller.key_id} may be answered 6 rows in all\n")
    server.start()
    assert caller.predict(inputs(2)).receipt.budget_left == 0
    assert command(*words) == (0, f"{caller.key_id} may be answered any number of rows in all\n")
    assert caller.predict(inputs(9)).receipt.spent == 15


def test_changed_again_and_again_under_load(server: Server) -> None:
    """No budget that was ever granted is exceeded, and none goes below what was charged."""
    caller, most = server.new_key(budget=0), 120
    over = threading.Event()

    def ask(_: int) -> int:
        answered = 0
        while True:
            try:
                answered += caller.predict(inputs(3)).receipt.rows_charged
            except grpc.RpcError as error:
                if refused(error).reason != "BUDGET_SPENT":
                    raise
                if over.is_set():
                    break
        return answered

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, n) for n in range(4)]
        for budget in range(0, most + 1, 4):
            set_budget(caller, budget)
            usage = caller.usage()
            assert usage.spent <= budget
        over.set()
        answered = sum(future.result() for future in asking)
    assert answered <= caller.usage().spent <= most
    key = next(key for key in server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys if key.key_id == caller.key_id)
    assert key.contract.budget == most
