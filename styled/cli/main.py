"""`styled`: the commands, each a few lines that call what does the work.

Whatever needs torch is imported inside the command that needs it, so that `--help` and
`status` answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from styled import __version__
from styled.cli.exits import errors_as_exit_codes
from styled.cli.importing import importing
from styled.jobs.job import JobState

app = typer.Typer(
    name="styled",
    help="Photos dropped into a folder come back as paintings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
config_app = typer.Typer(help="The configuration: its schema, and what it resolves to.")
app.add_typer(config_app, name="config", no_args_is_help=True)
weights_app = typer.Typer(help="The network's weights: where they are, fetching, exporting.")
app.add_typer(weights_app, name="weights", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file. Without it: ./config.yaml, else that of the folder ~/styled, "
        "else the service's, /etc/styled/config.yaml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def _version(wanted: bool) -> None:
    if wanted:
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
    """Work through the inbox, then exit: 0, 1 if anything was rejected, 75 if anything is left."""
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
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a recipe field, e.g. size.long_edge=256."
        ),
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
    seed: Annotated[int | None, typer.Option(help="For a noise start.", show_default=False)] = None,
    size: Annotated[
        Literal["painted", "input"], typer.Option(help="As the recipe has it, or the photo's own.")
    ] = "painted",
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
                settings=tuple(settings or ()),
                weights=weights,
                device=device,
                precision=precision,
                seed=seed,
                config=config,
                size=size,
            )
        )


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there.", show_default=False)],
    folders: Annotated[
        Path | None,
        typer.Option(
            help="Where inbox, outbox and the others are to be, instead of in the same folder; "
            "for a service, which makes them itself.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, untrained, or a .pth or .safetensors file.")
    ] = "imagenet",
) -> None:
    """Make a working folder: configuration, folders, a first style."""
    with errors_as_exit_codes():
        from styled.cli.init import init_folder, say_what_was_made

        say_what_was_made(init_folder(folder, weights=weights, folders=folders))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The working folder to make.")] = Path("styled-demo"),
) -> None:
    """Draw a photo and a painting, run the daemon on them, and show where the result is."""
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
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until Ctrl-C.")] = False,
) -> None:
    """Show the queue, the current job, the last results, what is degraded, and room on disk."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.status_view import show_status

        show_status(config, as_json=as_json, follow=follow)


@app.command()
def jobs(
    states: Annotated[
        list[JobState] | None,
        typer.Option("--state", help="Only such jobs; may be repeated.", show_default=False),
    ] = None,
    style: Annotated[str | None, typer.Option(help="Only this style.", show_default=False)] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many of each kind at most.")
    ] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the jobs: those to be done in their order, then the latest that have ended."""
    with errors_as_exit_codes():
        with importing():
            from styled.cli.jobs import show_jobs

        show_jobs(config, states or [], style, limit, as_json=as_json)


@app.command()
def cancel(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB...", help="Ids of jobs, or photos that wait.", show_default=False
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Whatever is still to be done.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Cancel jobs; their photos go to the rejected ones, from where `retry` brings them back."""
    with errors_as_exit_codes():
        from styled.cli.jobs import cancel

        cancel(config, words or [], everything=everything)


@app.command()
def explain(
    paths: Annotated[list[str], typer.Argument(help="Files, or ids of jobs.", show_default=False)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell why a file is, or is not, being painted: any file, wherever it lies."""
    with errors_as_exit_codes():
        from styled.cli.explain import show_explanation

        show_explanation(config, paths, as_json=as_json)


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look for whatever may go wrong on this machine, and say what to do about it."""
    with errors_as_exit_codes():
        from styled.cli.doctor import examine

        exit_code = examine(config, as_json=as_json)
    raise typer.Exit(exit_code)


@app.command()
def retry(
    rejected: Annotated[
        list[str] | None,
        typer.Argument(help="Rejected files, their .json, or ids of jobs.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Whatever was rejected.")] = False,
    config: ConfigOption = None,
) -> None:
    """Put rejected photos back into the inbox, to be tried once more."""
    with errors_as_exit_codes():
        from styled.cli.retry import retry

        retry(config, rejected or [], everything=everything)


@app.command()
def gallery(config: ConfigOption = None) -> None:
    """Make the gallery page anew, of all that lies in the outbox."""
    with errors_as_exit_codes():
        from styled.cli.gallery import rebuild_gallery

        rebuild_gallery(config)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show all values of one.")] = None,
    sheet: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            metavar="PHOTO STYLE",
            help="Paint a photo by every recipe, small and side by side. STYLE is a picture or a "
            "style of the configuration.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Of the sheet.")] = Path("sheet.jpg"),
    edge_px: Annotated[
        int, typer.Option("--edge", min=64, max=1024, help="Long edge of its pictures.")
    ] = 192,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="No recipe takes more: a quick look.", show_default=False),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="For the sheet, as of stylize.", show_default=False)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the recipes, show the values of one, or try them all on a photo."""
    with errors_as_exit_codes():
        if sheet is not None:
            from styled.cli.sheet import make_sheet

            make_sheet(*sheet, out, edge_px, steps, weights, config)
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
        from styled.cli.working_folder import find_config
        from styled.config import require_styles, show_config

        found = find_config(config)
        typer.echo(show_config(found))
        require_styles(found)


@weights_app.command("show")
def weights_show_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show where the configured network comes from, and whether it is there."""
    with errors_as_exit_codes():
        from styled.cli.weights import show_weights

        show_weights(config, as_json=as_json)


@weights_app.command("fetch")
def weights_fetch_command() -> None:
    """Download the pretrained network (548 MB), unless it is there and whole."""
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
            help="imagenet, untrained, or a .pth or .safetensors file. Without it: what the "
            "configuration names, else imagenet.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="float16 halves the file (80 MB to 40).")
    ] = "float32",
) -> None:
    """Write only what is needed of the network, for machines without internet."""
    with errors_as_exit_codes():
        from styled.cli.weights import export_weights

        export_weights(out, weights=weights, config=config, dtype=dtype)
