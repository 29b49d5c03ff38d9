"""The commands of `styled`; each calls a function in another module.

Modules that import torch are imported inside the commands that need them, so that `--help` and
`status` start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from styled import __version__
from styled.cli.exit_codes import errors_as_exit_codes
from styled.cli.fast_import import importing
from styled.journal.job import JobState

app = typer.Typer(
    name="styled",
    help="Photos dropped into a folder come back as paintings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
config_app = typer.Typer(help="Show the JSON Schema of the configuration, or its resolved values.")
app.add_typer(config_app, name="config", no_args_is_help=True)
weights_app = typer.Typer(help="Show, fetch or export the network's weights.")
app.add_typer(weights_app, name="weights", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file. Default: ./config.yaml, else ~/styled/config.yaml, else (but for "
        "run and once) the service's /etc/styled/config.yaml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"styled {__version__}")
        raise typer.Exit


@app.callback()
def styled(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Photos dropped into a folder come back as paintings."""


@app.command()
def run(config: ConfigOption = None) -> None:
    """Watch the inbox and paint what arrives, until stopped. SIGHUP reloads the configuration."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.daemon_commands import run_daemon

        run_daemon(config)


@app.command()
def once(config: ConfigOption = None) -> None:
    """Process the inbox once, then exit: 0; 1 if a photo was rejected, 75 if a file remains."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.daemon_commands import run_once

        exit_code = run_once(config)
    raise typer.Exit(exit_code)


@app.command()
def stylize(
    photo: Annotated[Path, typer.Argument(help="The photo to paint.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write the picture.", show_default=False)
    ],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "-s", "--style-image", help="A style image; may be repeated.", show_default=False
        ),
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="A style of the configuration.", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe; see styled recipes.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe field, e.g. size=256."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet, untrained, or a .pth or .safetensors file.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", show_default=False)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of a noise start.", show_default=False)
    ] = None,
    size: Annotated[
        Literal["painted", "input"],
        typer.Option(help="Size of the result: the recipe's (--set size=512), or the photo's."),
    ] = "painted",
    strength: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="0: nearly the photo, 50: as the recipe is, 100: nearly texture alone.",
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="A mask: white is painted, black stays the photo.", show_default=False),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Paint one picture, with a progress bar; writes OUT and OUT.json."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.stylize import StylizeRequest, stylize_one

        stylize_one(
            StylizeRequest(
                photo=photo,
                out=out,
                images=tuple(images or ()),
                style=style,
                recipe=recipe,
                set_options=tuple(settings or ()),
                weights=weights,
                device=device,
                precision=precision,
                seed=seed,
                config=config,
                size=size,
                strength=strength,
                mask=mask,
            )
        )


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="Created if it does not exist.", show_default=False)
    ],
    folders: Annotated[
        Path | None,
        typer.Option(
            help="Parent folder of inbox, outbox and the others, instead of FOLDER; for a service, "
            "which creates them itself.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, untrained, or a .pth or .safetensors file.")
    ] = "imagenet",
) -> None:
    """Create a working folder: configuration, folders, a first style."""
    with errors_as_exit_codes():
        from styled.cli.init import init_folder, print_next_steps

        print_next_steps(init_folder(folder, weights=weights, folders=folders))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The working folder to create.")] = Path("styled-demo"),
) -> None:
    """Draw a photo and a style image, run the daemon on them, and print where the result is."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.demo import run_demo

        run_demo(out)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check configuration, style images, folders, weights and device."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.check import check_all

        exit_code = check_all(config)
    raise typer.Exit(exit_code)


@app.command()
def status(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Update until Ctrl-C.")] = False,
) -> None:
    """Show the queue, the current job, the last results, degradations and free disk space."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.status_view import show_status

        show_status(config, as_json=as_json, follow=follow)


@app.command()
def jobs(
    states: Annotated[
        list[JobState] | None,
        typer.Option("--state", help="Only this state; may be repeated.", show_default=False),
    ] = None,
    style: Annotated[str | None, typer.Option(help="Only this style.", show_default=False)] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", min=1, help="Maximum of unfinished and of finished jobs."),
    ] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs: the unfinished ones in queue order, then the latest finished ones."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.jobs import show_jobs

        show_jobs(config, states or [], style, limit, as_json=as_json)


@app.command()
def cancel(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB...", help="Job ids, or photos in the inbox.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All unfinished jobs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Cancel jobs. Their photos are moved to the rejected folder; `retry` moves them back."""
    with errors_as_exit_codes():
        from styled.cli.jobs import cancel

        cancel(config, targets or [], everything=everything)


@app.command()
def first(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos in the inbox, or job ids.")
    ],
    config: ConfigOption = None,
) -> None:
    """Paint these photos next, before all others that wait."""
    with errors_as_exit_codes():
        from styled.cli.jobs import put_first

        put_first(config, photos)


@app.command()
def pause(
    after_current: Annotated[
        bool, typer.Option("--after-current", help="Finish what is being painted first.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Pause the queue until `styled resume`, also across restarts. The current job is saved."""
    with errors_as_exit_codes():
        from styled.cli.pause import pause

        pause(config, after_current=after_current)


@app.command()
def resume(config: ConfigOption = None) -> None:
    """Go on with the queue after `styled pause`."""
    with errors_as_exit_codes():
        from styled.cli.pause import resume

        resume(config)


@app.command()
def explain(
    paths: Annotated[list[str], typer.Argument(help="Files, or job ids.", show_default=False)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain why a file is or is not being painted. Works for any file in any folder."""
    with errors_as_exit_codes():
        from styled.cli.explain import show_explanation

        show_explanation(config, paths, as_json=as_json)


@app.command()
def report(
    about: Annotated[
        str,
        typer.Argument(
            metavar="PHOTO",
            help="A photo, a result or a rejected file, or a job id.",
            show_default=False,
        ),
    ],
    config: ConfigOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default=False),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            help="The daemon's log; - is standard input. Default: systemd's journal.",
            show_default=False,
        ),
    ] = None,
    with_picture: Annotated[
        bool, typer.Option("--with-picture", help="Add the photo, too.")
    ] = False,
) -> None:
    """Write a zip file for a bug report: sidecar, log, doctor, versions, configuration."""
    with errors_as_exit_codes():
        from styled.cli.report import write_report

        write_report(config, about, output, log, with_picture=with_picture)


@app.command()
def health() -> None:
    """Check the daemon's heartbeats, as a container's health check: 0 if it makes progress."""
    with errors_as_exit_codes():
        from styled.ops.heartbeat_file import HeartbeatFile

        typer.echo(HeartbeatFile().check())


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Find problems of this machine, and say how to fix them."""
    with errors_as_exit_codes():
        from styled.cli.doctor import examine

        exit_code = examine(config, as_json=as_json)
    raise typer.Exit(exit_code)


@app.command()
def retry(
    rejected: Annotated[
        list[str] | None,
        typer.Argument(help="Rejected files, their .json, or job ids.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All rejected photos.")] = False,
    config: ConfigOption = None,
) -> None:
    """Move rejected photos back into the inbox, to try them again."""
    with errors_as_exit_codes():
        from styled.cli.retry import retry

        retry(config, rejected or [], everything=everything)


@app.command()
def gallery(config: ConfigOption = None) -> None:
    """Rebuild the gallery page from all results in the outbox."""
    with errors_as_exit_codes():
        from styled.cli.gallery import rebuild_gallery

        rebuild_gallery(config)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show all values of this recipe.")] = None,
    sheet: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            metavar="PHOTO STYLE",
            help="Paint a photo with every recipe, small and side by side. STYLE is a style image "
            "or a style of the configuration.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the sheet.")] = Path(
        "sheet.jpg"
    ),
    edge_px: Annotated[
        int, typer.Option("--edge", min=64, max=1024, help="Long edge of the sheet's pictures.")
    ] = 192,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of steps at each scale.", show_default=False),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            metavar="20,50,80", help="Paint at each of these strengths.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights for the sheet, as in stylize.", show_default=False)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the recipes, show the values of one, or try all of them on a photo."""
    with errors_as_exit_codes():
        if sheet is not None:
            from styled.cli.contact_sheet import SheetRequest, make_sheet

            make_sheet(SheetRequest(*sheet, out, edge_px, steps, strengths, name, weights, config))
            return
        from styled.cli.recipes import show_recipe, show_recipes

        show_recipes() if name is None else show_recipe(name)


@config_app.command("schema")
def config_schema_command() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    import json

    from styled.config import config_schema

    typer.echo(json.dumps(config_schema(), indent=2))


@config_app.command("show")
def config_show_command(config: ConfigOption = None) -> None:
    """Print the configuration with every value resolved."""
    with errors_as_exit_codes():
        from styled.cli.find_config import find_config
        from styled.config import require_styles, show_config

        resolved = find_config(config)
        typer.echo(show_config(resolved))
        require_styles(resolved)


@weights_app.command("show")
def weights_show_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the source of the configured network, and whether it is available."""
    with errors_as_exit_codes():
        from styled.cli.weights import show_weights

        show_weights(config, as_json=as_json)


@weights_app.command("fetch")
def weights_fetch_command() -> None:
    """Download the pretrained network (548 MB), unless a valid file exists."""
    with errors_as_exit_codes():
        from styled.cli.weights import fetch_weights

        fetch_weights()


@weights_app.command("export")
def weights_export_command(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.safetensors", help="Where to write the file.", show_default=False
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet, untrained, or a .pth or .safetensors file. Default: that of the "
            "configuration, else imagenet.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="float16 halves the file (80 MB to 40).")
    ] = "float32",
) -> None:
    """Write only the layers that are needed, for machines without internet access."""
    with errors_as_exit_codes():
        from styled.cli.weights import export_weights

        export_weights(out, weights=weights, config=config, dtype=dtype)
