"""What dashboards are written in: a board, its panels, their queries. Sizes, colours, legends are chosen here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from deploy.grafana.alarms import threshold

Graph = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel
Any_ = TypeVar("Any_", timeseries.Panel, stat.Panel, table.Panel, heatmap.Panel)
# (expression, legend)
Query = tuple[str, str]

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# What the variables choose. NODE: series of one node each. JOB: recorded over all nodes.
NODE = 'job=~"$job", instance=~"$node"'
JOB = 'job=~"$job"'

# Of 24 columns.
THIRD, HALF, FULL, SIXTH = 8, 12, 24, 4
GREEN, RED = "green", "red"


@dataclass(frozen=True)
class Board:
    """One dashboard. `name`: its file's and its URL's; `variables`: name, label, query, beside job and node."""

    name: str
    title: str
    text: str
    rows: Mapping[str, Sequence[Graph]]
    variables: Sequence[tuple[str, str, str]] = field(default=())


def graph(
    title: str, text: str, unit: str, *queries: Query, alarm: str | None = None, width: int = THIRD, stack: bool = False
) -> timeseries.Panel:
    """Lines over time, red above the threshold of its `alarm`."""
    panel = _common(timeseries.Panel(), title, text, unit, alarm).height(8).span(width)
    legend = (
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel.legend(legend).min(0).fill_opacity(10 if stack else 0)
    panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    if stack:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if alarm:
        style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    return _asking(panel, queries)


def number(title: str, text: str, unit: str, expr: str, alarm: str | None = None, width: int = SIXTH) -> stat.Panel:
    """One figure, red above the threshold of its `alarm`."""
    panel = _common(stat.Panel(), title, text, unit, alarm).height(4).span(width)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_mode(common_models.BigValueColorMode.VALUE if alarm else common_models.BigValueColorMode.NONE)
    panel.graph_mode(common_models.BigValueGraphMode.AREA)
    return _asking(panel, [(expr, "")])


def heat(title: str, text: str, unit: str, expr: str, width: int = FULL) -> heatmap.Panel:
    """Buckets of a histogram over time. `expr`: a sum by `le`."""
    panel = _common(heatmap.Panel(), title, text, unit).height(9).span(width)
    panel.calculate(False).cell_gap(1)
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    colours = heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel.color(colours)
    query = _query(expr, "{{le}}").format(prometheus_models.PromQueryFormat.HEATMAP)
    return panel.with_target(query.ref_id("A"))


def per_node(title: str, text: str, columns: Sequence[tuple[str, str, str]]) -> table.Panel:
    """A row per node. `columns`: title, unit, expression by instance; each read once, now."""
    panel = _common(table.Panel(), title, text, "short").height(8).span(FULL)
    renamed, hidden = {"instance": "Node"}, {"Time": True, "job": True, "__name__": True}
    for number_, (column, unit, expr) in enumerate(columns):
        ref = chr(ord("A") + number_)
        query = _query(expr, "").instant().format(prometheus_models.PromQueryFormat.TABLE)
        panel.with_target(query.ref_id(ref))
        renamed[f"Value #{ref}"] = column
        panel.override_by_name(column, [models.DynamicConfigValue(id_val="unit", value=unit)])
    merge = models.DataTransformerConfig(id_val="merge", options={})
    organize = models.DataTransformerConfig(
        id_val="organize", options={"renameByName": renamed, "excludeByName": hidden}
    )
    return panel.with_transformation(merge).with_transformation(organize)


def _common(panel: Any_, title: str, text: str, unit: str, alarm: str | None = None) -> Any_:
    if alarm:
        text += f" Red: alarm {alarm}, docs/operations.md."
    panel.title(title).description(text).unit(unit).datasource(SOURCE)
    steps = [models.Threshold(value=None, color=GREEN)]
    if alarm:
        steps.append(models.Threshold(value=threshold(alarm), color=RED))
    panel.thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    return panel


Asking = TypeVar("Asking", timeseries.Panel, stat.Panel)


def _asking(panel: Asking, queries: Sequence[Query]) -> Asking:
    for number_, (expr, legend) in enumerate(queries):
        panel.with_target(_query(expr, legend).range().ref_id(chr(ord("A") + number_)))
    return panel


def _query(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend)


# ---- expressions that many panels are made of ----


def rate(metric: str, by: str = "instance", where: str = NODE) -> str:
    """Per second, summed by a label."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """Of a histogram of the chosen nodes together, or by a label."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({metric}_bucket{{{NODE}}}[$__rate_interval])))"


def mean(metric: str) -> str:
    """Of a histogram, by node."""
    return f"{rate(f'{metric}_sum')} / {rate(f'{metric}_count')}"
