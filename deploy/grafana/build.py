"""A dashboard put together: variables, annotations, links, rows of panels; then JSON. Panels: a file per board."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana import broker, delivery, loadtest, overview
from deploy.grafana.board import SOURCE, Board

DIRECTORY = Path(__file__).with_name("dashboards")
BOARDS = (overview.BOARD, delivery.BOARD, broker.BOARD, loadtest.BOARD)
# Every dashboard of ours carries it; the links at the top list them by it.
TAG = "hiroba"

# Name, colour, query: drawn over every time series.
ANNOTATIONS = (
    ("Drains", "orange", 'hiroba_draining{job=~"$job", instance=~"$node"} == 1'),
    (
        "Restarts",
        "purple",
        'changes(hiroba_process_start_time_seconds{job=~"$job", instance=~"$node"}[$__rate_interval]) > 0',
    ),
)


def rendered() -> Mapping[str, str]:
    """File name -> what must be in it."""
    return {
        f"{board.name}.json": JSONEncoder(sort_keys=True, indent=2).encode(_built(board)) + "\n" for board in BOARDS
    }


def _built(board: Board) -> models.Dashboard:
    builder = (
        builders.Dashboard(f"hiroba: {board.title}")
        .uid(f"hiroba-{board.name}")
        .description(board.text)
        .tags([TAG])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(hiroba_build_info, job)"))
        .with_variable(_variable("node", "Node", 'label_values(hiroba_build_info{job=~"$job"}, instance)'))
    )
    for name, label, query in board.variables:
        builder.with_variable(_variable(name, label, query))
    for name, colour, query in ANNOTATIONS:
        builder.annotation(
            builders.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(query)
        )
    builder.link(_links())
    _place(builder, board.rows)
    return _numbered(builder.build())


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    """Any number of values, all of them at first."""
    everything = models.VariableOption(text=["All"], value=["$__all"], selected=True)
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _links() -> builders.DashboardLink:
    """To the other dashboards, with the time and the nodes that are looked at."""
    return (
        builders.DashboardLink("hiroba")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .keep_time(True)
        .include_vars(True)
    )


def _place(builder: builders.Dashboard, rows: Mapping[str, Sequence[object]]) -> None:
    for title, panels in rows.items():
        builder.with_row(builders.Row(title))
        for panel in panels:
            builder.with_panel(panel)  # type: ignore[arg-type]  # the SDK has no common type for its panels


def _numbered(dashboard: models.Dashboard) -> models.Dashboard:
    """Panel ids that stay the same: links to a panel are made of them."""
    for number, panel in enumerate(dashboard.panels or (), 1):
        panel.id_val = number
    return dashboard
