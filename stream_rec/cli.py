"""The command line: the tree of commands and the way in. Each command is thin; the work is done below it."""

from __future__ import annotations

import typer

from stream_rec import cli_config, cli_evaluate, cli_kafka, cli_lists, cli_options, cli_run, cli_topics, cli_versions

HELP = """Keep a shop's recommendations learning while people shop.

Start with `stream-rec demo`. Then turn your own history into events with `stream-rec import`, run it through the
loop with `stream-rec replay`, and look at the run folder with `report`, `versions list` and `dead-letters list`.

On Kafka: `topics create`, then `worker --start earliest`, the main job; `send`, `slates tail` and `control` beside it.

Every command takes `--config FILE` and `--set section.key=value`; `stream-rec config show` explains all settings.

Exit status: 0 done, 1 the job failed, 2 wrong usage or settings, 3 the input was refused, 4 fenced by another
learner, 130 interrupted and resumable.
"""

app = typer.Typer(
    cls=cli_options.Commands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(cli_run.demo)
app.command("import")(cli_run.import_)
app.command("replay")(cli_run.replay)
app.command("worker")(cli_run.worker)
app.add_typer(cli_topics.app, name="topics")
app.command("send")(cli_kafka.send)
app.add_typer(cli_kafka.slates, name="slates")
app.command("control")(cli_kafka.control)
app.command("report")(cli_run.report)
app.command("evaluate")(cli_evaluate.evaluate)
app.add_typer(cli_versions.versions, name="versions")
app.add_typer(cli_lists.dead_letters, name="dead-letters")
app.add_typer(cli_config.app, name="config")
app.command("user-key")(cli_config.user_key)


def main() -> None:
    """Run the command line `stream-rec` and exit with its status."""
    app(prog_name="stream-rec")


if __name__ == "__main__":
    main()
