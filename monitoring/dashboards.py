"""Writes the Grafana dashboards: python monitoring/dashboards.py [--check]

``boards.py`` says what they show; Grafana's own builders (grafana-foundation-sdk) make the JSON in grafana/dashboards.
With --check nothing is written: the exit status says whether the files are what would be.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from string import ascii_uppercase

from boards import BOARDS, Board, Panel, Row
from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as kinds

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
SOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${datasource}")
GOOD, BAD, LINE = "green", "red", "orange"
TAG = "timbrel"

AnyPanel = timeseries.Panel | stat.Panel | bargauge.Panel


def text_of(board: Board) -> str:
    """The dashboard's JSON, with a fixed uid and no id: what provisioning wants."""
    made = (
        build.Dashboard(board.title)
        .uid(f"timbrel-{board.name}")
        .description(board.about)
        .tags([TAG])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(kinds.DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            build.DashboardLink("Timbrel")
            .type(kinds.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for number, part in enumerate(board.parts, start=1):
        if isinstance(part, Row):
            made = made.with_row(build.Row(part.title).id(number))
        else:
            made = made.with_panel(_panel(part).id(number))
    values = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return json.dumps({"id": None, **values}, indent=2, ensure_ascii=False) + "\n"


def _panel(panel: Panel) -> AnyPanel:
    """Grafana's panel, its looks and its queries."""
    made = {"timeseries": _timeseries, "stat": _stat, "bargauge": _bars}[panel.kind](panel)
    made.title(panel.title).description(panel.about).datasource(SOURCE)
    made.span(panel.width).height(panel.height).unit(panel.unit).thresholds(_thresholds(panel))
    if panel.least is not None:
        made.min(panel.least)
    if panel.most is not None:
        made.max(panel.most)
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    if panel.empty:
        made.no_value(panel.empty)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        asked = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        made.with_target(asked.range() if panel.kind == "timeseries" else asked.instant())
    return made


def _timeseries(panel: Panel) -> AnyPanel:
    made = timeseries.Panel().line_width(1).show_points(looks.VisibilityMode.NEVER)
    made.fill_opacity(40 if panel.stacked else 8)
    # The processes around it may be restarted: half a minute without a value is a gap that says so.
    made.span_nulls(False)
    made.legend(
        common.VizLegendOptions()
        .display_mode(looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    made.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI))
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if panel.lines:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphTresholdsStyleMode.DASHED))
    return made


def _stat(panel: Panel) -> AnyPanel:
    made = stat.Panel().reduce_options(_last()).graph_mode(looks.BigValueGraphMode.NONE)
    made.color_mode(looks.BigValueColorMode.VALUE)
    return made.text_mode(looks.BigValueTextMode.NAME if panel.named else looks.BigValueTextMode.VALUE)


def _bars(panel: Panel) -> AnyPanel:
    made = bargauge.Panel().reduce_options(_last()).orientation(looks.VizOrientation.VERTICAL)
    return made.display_mode(looks.BarGaugeDisplayMode.BASIC).show_unfilled(False)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = [kinds.Threshold(value=None, color=GOOD if panel.good == "below" else BAD)]
    if panel.kind == "timeseries":
        steps = [kinds.Threshold(value=None, color="transparent")]
        steps += [kinds.Threshold(value=value, color=LINE) for value in sorted(panel.lines)]
    else:
        other = BAD if panel.good == "below" else GOOD
        steps += [kinds.Threshold(value=value, color=other) for value in sorted(panel.lines)]
    return build.ThresholdsConfig().mode(kinds.ThresholdsMode.ABSOLUTE).steps(steps)


def main() -> int:
    files = {FOLDER / f"{board.name}.json": text_of(board) for board in BOARDS}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in FOLDER.glob("*.json") if path not in files]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.name} is not what boards.py says: run python monitoring/dashboards.py")
        return 1 if stale else 0
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
