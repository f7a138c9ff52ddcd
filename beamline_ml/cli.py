"""The command line: ``beamline-ml up | watch | view | write-documents | demo | fit | show | plan | doctor | ...``.

Every command takes ``--json`` for machines. Heavy imports happen inside the commands, so that ``--help`` and ``show``
work where only the client is installed.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from beamline_ml.errors import BeamlineMLError

app = typer.Typer(
    name="beamline-ml",
    help="From XPCS speckle frames to fitted, forecast dynamics in tiled.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()
complaints = Console(stderr=True)

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder of the embedded stack (databases, frames, logs).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunName = Annotated[str, typer.Argument(help="Run: uid, short uid, scan id, or -1 for the last.")]


def main() -> None:
    """Run the command line; refusals become a plain message and exit status 1."""
    try:
        app()
    except BeamlineMLError as refusal:
        complaints.print(
            f"[bold red]{type(refusal).__name__}[/]: {refusal.culprit}\n[bold]What to do[/]: {refusal.remedy}"
        )
        sys.exit(1)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("beamline_ml"):
            raise
        complaints.print(
            f"This command needs {missing.name}, which is not installed.\n"
            "[bold]What to do[/]: pip install 'beamline-ml\\[beamline]' (or \\[client] to query and plot results)."
        )
        sys.exit(1)


def _use_state_dir(state_dir: Path | None) -> None:
    """Settings of this process and of those it starts come from this stack's folder."""
    if state_dir is not None:
        os.environ["BEAMLINE_ML_STATE_DIR"] = str(state_dir.absolute())


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")


@app.command()
def up(state_dir: StateDir = None) -> None:
    """Bring up tiled, Prefect, a worker and the watcher on this machine, until Ctrl-C."""
    _use_state_dir(state_dir)
    from beamline_ml.service.console import Hops, addresses, wait_for_interrupt
    from beamline_ml.service.up import embedded_stack
    from beamline_ml.settings import load_settings

    with Hops(console) as hops, embedded_stack(load_settings(), hops.on_step) as stack:
        console.print(addresses(stack))
        console.print('Ctrl-C ends it. In another shell: eval "$(beamline-ml env)"', markup=False)
        wait_for_interrupt()


@app.command()
def watch(state_dir: StateDir = None) -> None:
    """Fit each XPCS run as soon as it is finished, beside the site's own tiled and Prefect."""
    _use_state_dir(state_dir)
    from beamline_ml.service.watcher import watch as watch_runs
    from beamline_ml.settings import load_settings

    watch_runs(load_settings())


@app.command()
def view(
    port: Annotated[int | None, typer.Option(help="Port of the page; another is taken when it is not free.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    origin: Annotated[
        list[str] | None, typer.Option(help="host:port under which browsers reach the page, where that differs.")
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Serve the live page of the beamline's tiled, until Ctrl-C; beamline-ml up does so by itself."""
    _use_state_dir(state_dir)
    from beamline_ml.live.page.server import PageServer
    from beamline_ml.service.ports import free_port
    from beamline_ml.settings import load_settings

    settings = load_settings()
    page = PageServer(settings, free_port(settings.live.page_port if port is None else port), host, origin or ())
    console.print(f"live page  {page.uri}", soft_wrap=True)
    page.run()


@app.command(name="write-documents")
def write_documents(
    first: Annotated[
        str | None,
        typer.Option("--from", help="Read again from here: first, or a position in the broker's own words."),
    ] = None,
    until_quiet: Annotated[
        bool, typer.Option("--until-quiet", help="End when the stream is read and tiled has all of it.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Write documents from the site's broker (settings: documents) to tiled, until Ctrl-C."""
    _use_state_dir(state_dir)
    from beamline_ml.brokers.writer import serve
    from beamline_ml.settings import load_settings

    serve(load_settings(), first, until_quiet)


@app.command()
def demo(
    movie: Annotated[
        Path | None,
        typer.Option(
            help="Real frames to play: an .npz video (frames, frame_period_s, um_per_px) or areaDetector HDF5."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write what the table shows to this file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up until Ctrl-C.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Run the whole chain on a simulated beamline and show what comes out."""
    from beamline_ml.service.console import Hops, addresses, wait_for_interrupt
    from beamline_ml.service.demo import demo_folder, running_demo, write_report
    from beamline_ml.service.demo_report import report_of, show_report
    from beamline_ml.settings import default_state_dir

    folder = demo_folder(state_dir or default_state_dir())
    with Hops(console) as hops, running_demo(folder, movie, hops.tell) as finished:
        report = report_of(finished)
        hops.stop()
        show_report(console, finished, report)
        console.print(addresses(finished.stack))
        if json_file is not None:
            write_report(json_file, report.as_json())
        if keep:
            console.print("The stack stays up until Ctrl-C.")
            wait_for_interrupt()


# Lets -1, the latest run, be an argument.
_NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


@app.command(context_settings=_NEGATIVE_NUMBERS)
def fit(
    run: RunName,
    qmap: Annotated[str | None, typer.Option(help="q-map file instead of rings from the run's geometry.")] = None,
    mask: Annotated[str | None, typer.Option(help="Mask file, nonzero = use.")] = None,
    first_frame: Annotated[int | None, typer.Option(help="First frame to use.")] = None,
    last_frame: Annotated[int | None, typer.Option(help="One past the last frame to use.")] = None,
    n_q: Annotated[int | None, typer.Option(help="Number of q rings.")] = None,
    normalization: Annotated[str | None, typer.Option(help="plain or static.")] = None,
    model: Annotated[str | None, typer.Option(help="neural_ode, or none for correlations only.")] = None,
    here: Annotated[bool, typer.Option("--here", help="In this process, instead of by a worker.")] = False,
    wait_s: Annotated[float, typer.Option(help="How long to wait for a worker's result; 0 returns at once.")] = 300.0,
    as_json: Json = False,
) -> None:
    """Fit a run, also with other settings than the automatic fit: that is another result beside the first."""
    from beamline_ml.service.fitting import FitRequest, fit_and_report
    from beamline_ml.settings import load_settings

    chosen = {
        "qmap": qmap,
        "mask": mask,
        "first_frame": first_frame,
        "last_frame": last_frame,
        "n_q": n_q,
        "normalization": normalization,
        "model": model,
    }
    parameters = {name: value for name, value in chosen.items() if value is not None}
    report = fit_and_report(load_settings(), FitRequest(run, parameters, here, wait_s))
    _print_json(report) if as_json else console.print_json(data=report)


@app.command(context_settings=_NEGATIVE_NUMBERS)
def show(
    run: Annotated[str | None, typer.Argument(help="Run (uid, short uid, scan id) or key of a result.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the newest of them to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Show the results of a run, failed ones with the reason; without a run, the latest results."""
    from beamline_ml.results.console import as_rows, chosen_results, print_results

    found = chosen_results(run)
    if as_json:
        _print_json(as_rows(found))
    else:
        print_results(console, found, whole=run is not None)
    if png is not None:
        found[0].plot(png)
        console.print(f"Picture: {png}")


@app.command(context_settings=_NEGATIVE_NUMBERS)
def export(
    result: Annotated[str, typer.Argument(help="Run or key of a result.")],
    path: Annotated[Path, typer.Argument(help="File to write (.h5, .nxs, .hdf).")],
    layout: Annotated[
        str, typer.Option("--format", help="nxxpcs (NeXus definition), or aps (8-ID layout, for pyXpcsViewer).")
    ] = "nxxpcs",
    as_json: Json = False,
) -> None:
    """Write a result as an NXxpcs file, or in the layout of APS 8-ID."""
    from beamline_ml.results.console import chosen_results, export_result

    written = export_result(chosen_results(result)[0], layout, path)
    _print_json({"file": str(written), "format": layout}) if as_json else console.print(f"Wrote {written}")


@app.command()
def correlate(
    file: Annotated[Path, typer.Argument(help="Eiger master, areaDetector HDF5, Rigaku .bin, .tpx3, .npy or .npz.")],
    qmap: Annotated[Path, typer.Option(help="q-map: APS HDF5 file or .poni.")],
    out: Annotated[Path | None, typer.Option(help="Result file; default NAME_results.hdf here.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Mask file, nonzero = use.")] = None,
    frame_period_s: Annotated[float | None, typer.Option(help="Time between frames, where the file has none.")] = None,
    n_frames: Annotated[int | None, typer.Option(help="Length of a run of photon events.")] = None,
    photon_at: Annotated[str, typer.Option(help="Timepix clusters: centroid, brightest or hits.")] = "centroid",
    normalization: Annotated[str, typer.Option(help="Of the two-time functions: plain or static.")] = "plain",
    max_gib: Annotated[float, typer.Option(help="Most memory for frames, in GiB.")] = 4.0,
    as_json: Json = False,
) -> None:
    """Correlate a detector file, without a run or a server; writes a result file of the APS 8-ID layout."""
    from beamline_ml.service.file_correlation import FileRequest, correlate_file

    request = FileRequest(file, qmap, out, mask, frame_period_s, n_frames, photon_at, normalization, max_gib)
    report = correlate_file(request)
    _print_json(report) if as_json else console.print_json(data=report)


@app.command()
def plan(
    samples: Annotated[
        list[str] | None, typer.Argument(help="Names of samples; all that are catalogued, without.")
    ] = None,
    publish: Annotated[bool, typer.Option(help="Keep the plans in tiled, under results/plans.")] = True,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Say of catalogued samples what to measure next, for how long, and why."""
    _use_state_dir(state_dir)
    from beamline_ml.service.plan_commands import plan_samples, print_plans

    answers = plan_samples(samples, publish)
    _print_json(answers) if as_json else print_plans(console, answers)


@app.command()
def measure(
    frames: Annotated[int, typer.Option(help="Frames of the first burst.")],
    period_s: Annotated[float, typer.Option(help="Time between two of its frames in s.")],
    beam_time_s: Annotated[float, typer.Option(help="Beam time that all bursts together may take in s.")],
    dose_rate_mgy_per_s: Annotated[float | None, typer.Option(help="Dose that the sample absorbs, MGy/s.")] = None,
    dose_mgy: Annotated[float | None, typer.Option(help="Dose that all bursts together may give, MGy.")] = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Queue bursts on the sample in the beam, each planned from the last, until its dynamics are known well enough."""
    _use_state_dir(state_dir)
    from beamline_ml.service.plan_commands import measure_and_tell
    from beamline_ml.service.plan_loop import Allowance

    allowance = Allowance(beam_time_s, dose_rate_mgy_per_s, dose_mgy)
    told = measure_and_tell((frames, period_s), allowance, None if as_json else console)
    if as_json:
        _print_json(told)


@app.command()
def doctor(state_dir: StateDir = None, as_json: Json = False) -> None:
    """Check ports, disk, versions, services, data roots and GPU, and say what to do about each."""
    _use_state_dir(state_dir)
    from beamline_ml.service.console import print_findings
    from beamline_ml.service.doctor import examine
    from beamline_ml.settings import load_settings

    findings = examine(load_settings())
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        print_findings(console, findings)
    if any(finding.status == "fail" for finding in findings):
        sys.exit(1)


@app.command()
def env(state_dir: StateDir = None) -> None:
    """Print what a shell exports to talk to the running stack: eval "$(beamline-ml env)"."""
    _use_state_dir(state_dir)
    from beamline_ml.service.configuration import shell_environment
    from beamline_ml.settings import load_settings

    for name, value in shell_environment(load_settings()).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


@app.command(name="new-profile")
def new_profile(folder: Annotated[Path, typer.Argument(help="Folder to make, named like the beamline.")]) -> None:
    """Copy the profile template, with the three or four values to set marked in it."""
    from beamline_ml.settings import copy_template

    for path in copy_template(folder):
        console.print(str(path), soft_wrap=True)
    console.print("Set the values marked SET, then: beamline-ml doctor", markup=False)


phonons = typer.Typer(help="Phonon density of states of crystals, predicted with error bars.", no_args_is_help=True)
app.add_typer(phonons, name="phonons")


def _say(line: str) -> None:
    complaints.print(line, markup=False, highlight=False)


@phonons.command("fetch")
def phonons_fetch(
    folder: Annotated[Path, typer.Argument(help="Where the public training data go.")], as_json: Json = False
) -> None:
    """Get the public training data, checksum-verified; a fetch that was cut off goes on where it stopped."""
    from beamline_ml.service.phonon_commands import fetch

    _tell(fetch(folder, _say), as_json)


@phonons.command("train")
def phonons_train(
    data: Annotated[Path, typer.Argument(help="Data file, or its folder.")],
    out: Annotated[Path, typer.Argument(help="Where weights, model card and log go.")],
    seed: Annotated[int, typer.Option(help="Seed of the first member.")] = 0,
    members: Annotated[int, typer.Option(help="Networks in the ensemble.")] = 8,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; run again to go on.")] = None,
    processes: Annotated[int, typer.Option(help="Members trained side by side.")] = 2,
    as_json: Json = False,
) -> None:
    """Train the ensemble; the defaults reproduce the shipped weights."""
    from beamline_ml.service.phonon_commands import train

    _tell(train(data, out, _say, seed, members, minutes, processes), as_json)


@phonons.command("predict")
def phonons_predict(
    files: Annotated[list[Path], typer.Argument(help="CIF files.")],
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Ask SevenNet-0 as well: up to a minute a crystal.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Predict the density of states of CIF files; one that cannot be trusted is refused by name."""
    from beamline_ml.service.phonon_commands import predict

    _tell(predict(files, second_opinion=teacher), as_json)


@phonons.command("label")
def phonons_label(
    data: Annotated[Path, typer.Argument(help="Data file, or its folder.")],
    out: Annotated[Path, typer.Argument(help="Where the labels go.")],
    training: Annotated[bool, typer.Option("--training", help="Training materials, not the held-out ones.")] = False,
    count: Annotated[int | None, typer.Option(help="Only so many, drawn at random.")] = None,
    as_json: Json = False,
) -> None:
    """Have the teacher label materials; a labelling that was cut off goes on where it stopped."""
    from beamline_ml.service.phonon_commands import label

    _tell(label(data, out, _say, training, count), as_json)


@phonons.command("stack")
def phonons_stack(
    data: Annotated[Path, typer.Argument(help="Data file, or its folder.")],
    labels: Annotated[Path, typer.Argument(help="File of labels of held-out materials.")],
    out: Annotated[Path, typer.Argument(help="File of the stacking to write.")],
    as_json: Json = False,
) -> None:
    """Weigh network and teacher against each other on the held-out materials."""
    from beamline_ml.service.phonon_commands import stack

    _tell(stack(data, labels, out), as_json)


def _tell(content: Any, as_json: bool) -> None:
    if as_json:
        _print_json(content)
    else:
        console.print_json(data=content)
