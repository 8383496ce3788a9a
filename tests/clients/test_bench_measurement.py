import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from visavis.bench.limit import LimitRound
from visavis.bench.load import OK, Outcome, Window
from visavis.bench.measurement import (
    Cost,
    Latency,
    Round,
    latency_of,
    measured,
    median_of_limit,
    median_round,
    percentile,
    session_ms,
)
from visavis.bench.workload import Call
from visavis.v1 import vision_pb2 as pb

from . import canned

CLASSIFY = Call("classify", "a.jpg", ("m",), b"")
COMPARE = Call("compare", "a.jpg", ("m", "n"), b"")
DETECT = Call("detect", "a.jpg", ("n",), b"")


def outcome(latency_s: float, due: float = 0.0, code: str = OK, call: Call = CLASSIFY) -> Outcome:
    return Outcome(call, due, due, due + latency_s, code)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=50),
    st.floats(0, 100),
)
def test_percentile_equals_numpys(values: list[float], percent: float):
    given = percentile(sorted(values), percent)
    assert given == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-9)


def test_latency_counts_only_successful_calls():
    outcomes = [outcome(n / 1000) for n in range(1, 102)]
    refused = [outcome(9.0, code="RESOURCE_EXHAUSTED")]
    latency = latency_of([*outcomes, *refused])
    assert latency == Latency(*(pytest.approx(ms) for ms in (51, 96, 100, 101)))
    assert latency_of(refused) is None


def test_round_has_throughput_errors_and_cost_per_answer():
    answered = [outcome(0.1, due) for due in (10.0, 10.5, 11.0, 11.5)]
    failed = [outcome(0.1, 10.2, "INTERNAL"), outcome(0.1, 10.3, "INTERNAL")]
    window = Window(10.0, 12.0, (*answered, *failed))
    cost = Cost(server_cpu_s=0.2, server_rss_bytes=300 << 20, generator_cpu_s=0.004)
    before_and_after = [LimitRound(1.5, 20, 40, 1.0), LimitRound(2.5, 30, 50, 0.5)]
    round_ = measured(window, cost, before_and_after)
    assert round_.per_s == 2.0
    assert round_.errors == {"INTERNAL": 2}
    assert round_.server_cpu_ms == pytest.approx(50)
    assert round_.generator_cpu_ms == pytest.approx(1)
    assert round_.server_rss_mib == 300
    assert (round_.limit_per_s, round_.limit_p50_ms, round_.limit_cpu_ms) == (2, 25, 45)
    assert round_.limit_cores == 0.75
    assert round_.of_limit == 1.0


def test_answers_after_the_window_count_for_latency_but_not_for_throughput():
    window = Window(0.0, 1.0, (outcome(0.5), outcome(5.0, 0.9)))
    round_ = measured(window, Cost(None, None, 0.0))
    assert round_.per_s == 1.0
    assert round_.latency is not None
    assert round_.latency.max_ms == 5000


def test_round_without_answers_has_no_latency_and_no_cost():
    round_ = measured(Window(0.0, 1.0, (outcome(0.1, code="UNAVAILABLE"),)), Cost(1.0, 1, 1.0))
    assert (round_.per_s, round_.latency, round_.server_cpu_ms) == (0.0, None, None)


def test_medians_leave_the_outlier_out_and_errors_add_up():
    rounds = [
        Round(10.0, Latency(1, 2, 3, 4), {"INTERNAL": 1}, server_cpu_ms=5.0),
        Round(90.0, Latency(9, 9, 9, 9), {"INTERNAL": 2, "ABORTED": 1}),
        Round(12.0, Latency(2, 3, 4, 5), {}, server_cpu_ms=7.0),
    ]
    median = median_round(rounds)
    assert median.per_s == 12.0
    assert median.latency == Latency(2, 3, 4, 5)
    assert median.errors == {"INTERNAL": 3, "ABORTED": 1}
    assert median.server_cpu_ms == 6.0


def test_ratio_to_the_limit_is_the_median_of_each_rounds_own():
    # The machine became half as fast: each ratio is right, that of the medians would not be.
    rounds = [
        Round(100.0, None, limit_per_s=100.0),
        Round(45.0, None, limit_per_s=50.0),
        Round(40.0, None, limit_per_s=50.0),
    ]
    assert median_of_limit(rounds) == pytest.approx(0.9)
    assert median_of_limit([Round(1.0, None)]) is None


def answered(call: Call, *runs: tuple[str, float]) -> Outcome:
    """Return an answer whose models ran for so many milliseconds."""
    if call.method == "compare":
        answers = [
            pb.ModelAnswer(served_by=canned.served_by(m), timings=pb.Timings(inference_ms=ms))
            for m, ms in runs
        ]
        message = pb.CompareResponse(comparisons=[pb.TaskComparison(answers=answers)])
        return Outcome(call, 0, 0, 0.1, OK, message.SerializeToString())
    ((model, ms),) = runs
    kind = pb.ClassifyResponse if call.method == "classify" else pb.DetectResponse
    single = kind(served_by=canned.served_by(model), timings=pb.Timings(inference_ms=ms))
    return Outcome(call, 0, 0, 0.1, OK, single.SerializeToString())


def test_session_time_is_summed_over_all_models_of_a_method():
    outcomes = [
        answered(CLASSIFY, ("m", 10.5)),
        answered(CLASSIFY, ("m", 11.5)),
        answered(DETECT, ("n", 7.0)),
        answered(COMPARE, ("m", 12.5), ("n", 8.0)),
    ]
    assert session_ms(outcomes) == {"classify": 22.0, "detect": 7.0, "compare": 20.5}


def test_answers_of_one_batch_share_the_time_of_its_run():
    batch = 40.0625
    outcomes = [
        *(answered(CLASSIFY, ("m", batch)) for _ in range(3)),
        answered(COMPARE, ("m", batch), ("n", 5.0)),
        # Another model's run, of the same length by chance.
        answered(DETECT, ("n", batch)),
    ]
    obtained = session_ms(outcomes)
    assert obtained == {"classify": batch * 3 / 4, "compare": batch / 4 + 5, "detect": batch}


def test_several_methods_have_separate_shares():
    window = Window(0.0, 2.0, (answered(CLASSIFY, ("m", 10.0)), answered(DETECT, ("n", 6.0))))
    methods = measured(window, Cost(None, None, 0.0)).methods
    assert {name: share.session_ms_per_s for name, share in methods.items()} == {
        "classify": 5.0,
        "detect": 3.0,
    }
    alone = Window(0.0, 2.0, (answered(CLASSIFY, ("m", 10.0)),))
    assert measured(alone, Cost(None, None, 0.0)).methods == {}
