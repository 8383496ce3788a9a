"""`visavis compare`: the answers of several models about pictures, side by side."""

from collections.abc import Callable

import typer

from visavis.client import Client
from visavis.commands import compare_options as own
from visavis.commands import options
from visavis.commands.comparison_tables import comparison_tables
from visavis.commands.failures import exit_codes
from visavis.commands.pictures import Job, answer
from visavis.commands.study import compare_folder
from visavis.dataset.given import are_many
from visavis.peers import PeeredClient, parse_peers
from visavis.results import Comparison


def compare(
    pictures: own.Pictures,
    models: own.Models = None,
    tasks: own.Tasks = None,
    baseline: own.Baseline = None,
    top_k: options.TopK = None,
    score_threshold: options.ScoreThreshold = None,
    iou_threshold: options.IouThreshold = None,
    max_detections: options.MaxDetections = None,
    labels: own.Labels = None,
    class_agnostic: options.ClassAgnostic = False,
    annotate: options.Annotate = None,
    explain: options.Explain = None,
    difference: own.Difference = False,
    json: options.Json = False,
    server: options.Server = options.SERVER,
    timeout: options.Timeout = options.TIMEOUT_S,
    peer: own.Peers = None,
    repository: options.Repository = None,
    answers: own.Answers = None,
    report: own.Report = None,
    json_file: own.JsonFile = None,
    csv: own.Csv = None,
    csv_slices: own.CsvSlices = None,
    csv_confusion: own.CsvConfusion = None,
    fiftyone: own.FiftyOne = None,
    markdown: own.Markdown = None,
    junit: own.Junit = None,
    fail_under: own.FailUnder = None,
    max_drop: own.MaxDrop = None,
    strict: own.Strict = False,
    within_ms: own.WithinMs = None,
    callers: own.Callers = 32,
    cost: own.CostSeconds = 0.0,
) -> None:
    """Compare the answers of several models, side by side; count them for a folder."""
    names, task_names, kept = options.listed(models), own.parse_tasks(tasks), options.listed(labels)
    with exit_codes():
        peers = parse_peers(peer or [])
    of_folder = own.FolderOptions(
        models=names,
        tasks=task_names,
        baseline=baseline,
        labels=own.truth_paths(kept),
        repository=repository,
        answers=answers,
        report=report,
        json=json_file,
        csv=csv,
        csv_slices=csv_slices,
        csv_confusion=csv_confusion,
        fiftyone=fiftyone,
        markdown=markdown,
        junit=junit,
        fail_under=fail_under or [],
        max_drop=max_drop or [],
        strict=strict,
        within_ms=within_ms,
        callers=callers,
        cost=cost,
        server=server,
        timeout=timeout,
        peers=peers,
    )
    is_folder = any(map(are_many, pictures))
    picture_by_picture = json or annotate is not None
    counts = of_folder.are_given or own.are_a_path(kept) or (is_folder and not picture_by_picture)
    if counts:
        own.refuse_for_folders(
            top_k=top_k,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            class_agnostic=class_agnostic or None,
            annotate=annotate,
            explain=explain,
            difference=difference or None,
            json=json or None,
        )
        compare_folder(pictures, of_folder)
        return
    if difference and annotate is None:
        raise typer.BadParameter(
            "it draws into the picture of --annotate; add --annotate FILE.jpg",
            param_hint="--difference",
        )

    if peers and annotate is not None:
        raise typer.BadParameter(
            "a server draws its own models only; leave out --peer, or write a report",
            param_hint="--annotate",
        )

    def prepare(client: Client) -> Callable[[bytes], Comparison]:
        if isinstance(client, PeeredClient):
            client.learn()
        return lambda image: client.compare(
            image,
            tasks=task_names,
            models=names,
            baseline=baseline,
            top_k=top_k,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            labels=kept,
            class_agnostic=class_agnostic,
            annotate=annotate is not None,
            annotate_difference=difference,
            explain=options.explained(explain),
        )

    job = Job(pictures, server, timeout, json, annotate, peers, repository)
    answer(job, prepare, comparison_tables)
