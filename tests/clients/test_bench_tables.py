import io

from rich.console import Console
from visavis.bench.measurement import Latency, MethodShare, Round
from visavis.bench.rounds import Load, Row
from visavis.commands.bench_tables import bench_table

LATENCY = Latency(512.3, 80.46, 9.04, 9.9)


def printed(*rows: Row) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(bench_table(rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(callers: int = 8, **figures: object) -> Row:
    return Row(Load(callers=callers), (Round(41.26, LATENCY, **figures),))  # type: ignore[arg-type]


def test_figures_are_rounded_to_their_precision():
    out = printed(row(limit_per_s=42.1, limit_cores=1.0, server_cpu_ms=47.31, server_rss_mib=512.0))
    assert "8   41.3  0.980  512  80.5  9.0       0    47.3  512" in out


def test_unknown_figures_have_no_column():
    out = printed(row())
    assert "limit" not in out
    assert "RSS" not in out


def test_shares_of_methods_are_relative_to_their_mean():
    shares = {
        "classify": MethodShare(10.0, LATENCY, 600.0),
        "detect": MethodShare(20.0, None, 400.0),
    }
    out = printed(row(methods=shares))
    assert "classify   10.0       600    1.20  512  80.5  9.0" in out
    assert "0.80" in out


def test_reasons_to_distrust_the_figures_are_shown():
    calm = row(limit_per_s=40.0, limit_cores=0.99, late_ms=1.0, generator_cpu_ms=0.5)
    assert "other processes ran" not in printed(calm)
    assert "the client sent" not in printed(calm)
    assert "the client used" not in printed(calm)
    assert "the limit had 61% of its cores" in printed(calm, row(limit_per_s=40, limit_cores=0.61))
    assert "sent up to 25.0 ms late" in printed(row(late_ms=25.0))
    assert "used 83% of one core" in printed(row(generator_cpu_ms=20.1))


def test_only_the_first_differences_are_shown():
    many = tuple(f"picture {n}: another label" for n in range(9))
    out = printed(Row(Load(rate_per_s=2.5), (Round(2.5, LATENCY),), 20, many))
    assert "9 of 20 answers differ from the first answers" in out
    assert out.count("another label") == 5
    assert "calls/s" in out
    assert "2.5" in out
