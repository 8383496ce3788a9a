"""How much is answered, and how soon: as ratios to what the machine does without a server."""

import statistics
import sys
from collections.abc import Callable, Sequence

from visavis.bench.own_server import own_server
from visavis.bench.rounds import Load, Plan, Row
from visavis.bench.workload import calls_of
from visavis.errors import ServerFailed

from .site import CLASSIFY, DETECT, INT8, ROOT, NotRun, Site
from .targets import Measurement, Result, at_least, at_most

Measure = Callable[[Site], Sequence[Result]]
# Where the limit had less of its cores than this, something else ran on the machine.
_CORES_TO_ITSELF = 0.95
# About as many calls as a lone caller makes: between them the cores idle, and wake slowly.
_LONE_PER_S = 50.0
# For processors that OpenVINO's plugin does not know: its own build of ONNX Runtime, which can't
# be installed beside another.
_OPENVINO = ROOT / ".venv-openvino" / "bin" / "python"


def _of_limit(row: Row) -> Result:
    median = row.median
    assert row.of_limit and median.latency
    had = median.limit_cores or 1.0
    busy = "" if had > _CORES_TO_ITSELF else f"; the limit had {had:.0%} of its cores"
    return Result(
        row.of_limit,
        f"**{row.of_limit:.3f}** ({median.per_s:.1f} of {median.limit_per_s:.1f} per s; "
        f"CPU {median.server_cpu_ms:.1f} of {median.limit_cpu_ms:.1f} ms; "
        f"p50 {median.latency.p50_ms:.0f}, p99 {median.latency.p99_ms:.0f} ms{busy})",
    )


def _tail(row: Row) -> Result:
    ratio = statistics.median(r.latency.p99_ms / r.latency.p50_ms for r in row.rounds if r.latency)
    return Result(ratio, f"**{ratio:.2f}**")


def _fp32(method: str, names: tuple[str, ...]) -> Measure:
    def measure(site: Site) -> Sequence[Result]:
        few, many = site.rows(method, names, [Load(callers=8), Load(callers=32)])
        return _of_limit(few), _of_limit(many), _tail(few)

    return measure


def _int8(method: str, names: tuple[str, ...]) -> Measure:
    def measure(site: Site) -> Sequence[Result]:
        quantised = tuple(INT8[name] for name in names)
        many = [Load(callers=32)]
        (row,) = site.rows(method, quantised, many, served=site.int8, limit_models=names)
        return [_of_limit(row)]

    return measure


def _openvino(site: Site) -> Sequence[Result]:
    options = ("--device", "openvino", "--bf16")
    python = str(_OPENVINO) if _OPENVINO.exists() else sys.executable
    try:
        with own_server(site.fp32, options, python=python):
            pass
    except ServerFailed as error:
        raise NotRun(str(error).splitlines()[-1]) from None
    results = []
    for method, names in (("classify", CLASSIFY), ("detect", DETECT)):
        (row,) = site.rows(
            method,
            names,
            [Load(callers=32)],
            server_options=options,
            python=python,
            exact=False,  # Rounding to 8 bits of mantissa shows in the third decimal.
        )
        results.append(_of_limit(row))
    return results


def _alone(method: str, names: tuple[str, ...], precision: str) -> Measure:
    def measure(site: Site) -> Sequence[Result]:
        repository = site.fp32 if precision == "fp32" else site.int8
        asked = names if precision == "fp32" else tuple(INT8[name] for name in names)
        (row,) = site.rows(
            method,
            asked,
            [Load(callers=1)],
            served=repository,
            limit=repository,
            alone=True,
            # The limit scales pixels by 1/255 where the original divides by 255: a last bit, of
            # which int8 makes thousandths of a score.
            exact=precision == "fp32",
        )
        ratio = statistics.median(
            (r.limit_p50_ms or 0.0) / r.latency.p50_ms for r in row.rounds if r.latency
        )
        median = row.median
        assert median.latency
        (echo,) = site.echo(method, [Load(rate_per_s=_LONE_PER_S)])
        assert echo.median.latency
        times = (
            f"p50 {median.limit_p50_ms:.1f} in-process, {median.latency.p50_ms:.1f} ms served; "
            f"of this, gRPC alone takes {echo.median.latency.p50_ms:.1f} to carry the same bytes"
        )
        return [Result(ratio, f"**{ratio:.3f}** ({times})")]

    return measure


def _compare(site: Site) -> Sequence[Result]:
    (row,) = site.rows("compare", (*CLASSIFY, *DETECT), [Load(callers=8)])
    return [_of_limit(row)]


def _mixed(site: Site) -> Sequence[Result]:
    asked = (("classify", CLASSIFY), ("detect", DETECT), ("compare", (*CLASSIFY, *DETECT)))
    with site.server(site.fp32) as (server, watched, _):
        calls = [calls_of(method, names, site.scenes) for method, names in asked]
        plan = Plan(
            server.address,
            calls,
            [Load(callers=24)],
            seconds=site.seconds,
            rounds=site.rounds,
            check=True,
        )
        (row,) = site.load(plan, watched)
    shares = {name: share.session_ms_per_s for name, share in row.median.methods.items()}
    mean = sum(shares.values()) / len(asked)
    if len(shares) < len(asked):
        return [Result(1.0, f"**starved**: only {', '.join(shares)} had answers")]
    furthest = max(abs(share / mean - 1) for share in shares.values())
    parts = ", ".join(f"{name} {share / mean:.2f}" for name, share in shares.items())
    return [Result(furthest, f"**{furthest:.0%}** from the mean at most ({parts})")]


MEASUREMENTS = (
    Measurement(
        "classify",
        (
            at_least("Classify, fp32, 8 callers", 0.98),
            at_least("Classify, fp32, 32 callers", 0.98),
            at_most("Classify, fp32, 8 callers: p99 / p50", 1.35),
        ),
        _fp32("classify", CLASSIFY),
    ),
    Measurement(
        "detect",
        (
            at_least("Detect, fp32, 8 callers", 1.05),
            at_least("Detect, fp32, 32 callers", 1.05),
            at_most("Detect, fp32, 8 callers: p99 / p50", 1.35),
        ),
        _fp32("detect", DETECT),
    ),
    Measurement(
        "classify-int8",
        (at_least("Classify, int8, 32 callers", 2.85),),
        _int8("classify", CLASSIFY),
    ),
    Measurement(
        "detect-int8",
        (at_least("Detect, int8, 32 callers", 1.28),),
        _int8("detect", DETECT),
    ),
    Measurement(
        "openvino",
        (
            at_least("Classify, OpenVINO bf16, 32 callers", 1.9),
            at_least("Detect, OpenVINO bf16, 32 callers", 1.5),
        ),
        _openvino,
    ),
    *(
        Measurement(
            f"alone-{method}-{precision}",
            (at_least(f"One caller alone, {method}, {precision}: in-process / served", ratio),),
            _alone(method, names, precision),
        )
        for precision, ratio in (("fp32", 0.95), ("int8", 0.90))
        for method, names in (("classify", CLASSIFY), ("detect", DETECT))
    ),
    Measurement("compare", (at_least("Compare of both, fp32, 8 callers", 0.98),), _compare),
    Measurement(
        "mixed",
        (
            at_most(
                "Classify, Detect and Compare at once, 8 callers each: session time",
                0.15,
                "equal within 15 %",
            ),
        ),
        _mixed,
    ),
)
