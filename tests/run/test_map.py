"""The transfer map: its file, its runs by made-up recipes, its numbers against the comparisons, its page."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.run.make_runs import curve, make_run
from visionkit.commands import transfer_map as verb
from visionkit.compare import compare
from visionkit.compare.map.page import write_map
from visionkit.compare.map.plan import PLAN_FILE
from visionkit.compare.map.read_map import read_map
from visionkit.compare.map.transfer_map import Gap, MapCell, TransferMap, relative_gap
from visionkit.compare.statistics import holm
from visionkit.errors import InputError, RunError
from visionkit.run.config import RunConfig, setting, to_dict
from visionkit.run.map import map_cost
from visionkit.run.map import run_map as running
from visionkit.run.map.map_config import read_map_config
from visionkit.run.map.run_map import publish_map, run_map, train_one_of
from visionkit.run.sweep.arms import run_recipe

LITE, SQUEEZE = "packaged/efficientnet_lite0", "packaged/squeezenet1_1"
TEXT = f"""
backbones: [{LITE}, {SQUEEZE}]
data:
  photos: {{recipe: classify}}
  cells: {{recipe: detect, backbones: [{LITE}], fractions: [1]}}
init: [pretrained, scratch]
fractions: [0.1, 1]
seeds: [0, 1, 2]
accelerator: cpu
devices: "1"
jobs: 1
"""
RUNS = 2 * 2 * 2 * 3 + 2 * 3  # photos: backbones, inits, fractions, seeds; cells: inits, seeds
SMALL = TEXT.replace(f"[{LITE}, {SQUEEZE}]", f"[{LITE}]")  # two cells
SMALL_RUNS = RUNS - 2 * 2 * 3


@dataclasses.dataclass
class Plain(RunConfig):
    """A recipe's settings."""

    label_smoothing: float = setting(0.1, "mass", min=0, below=1)


def written(one, folder):
    """What a run of these settings would have written, without training."""
    folder.mkdir(parents=True, exist_ok=True)
    points = curve(one.init, one.seeds[0], one.fractions[0])
    made = make_run(
        folder.parent / f"made-{folder.name}", one.init, one.seeds[0], one.fractions[0],
        points=[(6000, points[-1][1])], config=to_dict(one),
    )  # fmt: skip
    for path in made.iterdir():
        path.rename(folder / path.name)
    made.rmdir()
    made.parent.rmdir()
    (folder / "config.yaml").write_text(json.dumps(to_dict(one)))
    return json.loads((folder / "result.json").read_text())


class Recipes:
    """Recipes that train in no time; a run in `broken` fails."""

    def __init__(self):
        self.calls, self.broken = [], set()

    def train(self, one, folder):
        self.calls.append(f"{folder.parent.parent.name}/{folder.parent.name}/{folder.name}")
        if self.calls[-1] in self.broken:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(json.dumps(to_dict(one)))
            raise RunError("the loss is no number")
        return written(one, folder)

    def __call__(self, name):
        recipe = types.ModuleType(name)
        recipe.Config = Plain if name == "classify" else RunConfig
        recipe.train, recipe.VARIANTS, recipe.PATHS = self.train, (small,), ("data", "init")
        recipe.main = lambda config: run_recipe(config, self.train, paths=recipe.PATHS)
        if name not in ("classify", "detect"):
            raise InputError(f"Unknown recipe {name!r}.")
        return recipe


def small(config):
    config.images, config.seeds = 500, [7]
    return config


@pytest.fixture
def recipes():
    return Recipes()


@pytest.fixture
def read(tmp_path, recipes):
    def read(text=TEXT, **options):
        (tmp_path / "map.yaml").write_text(text)
        return read_map_config(tmp_path / "map.yaml", recipes, out=str(tmp_path / "out"), **options)

    return read


def test_each_backbone_on_each_data_set_is_a_comparison_with_the_settings_of_the_file(read, tmp_path):
    config = read(TEXT.replace("{recipe: classify}", "{recipe: classify, lr: 0.01, variant: small}"), jobs=2)
    assert [cell.name for cell in config.cells] == [f"photos, {LITE}", f"photos, {SQUEEZE}", f"cells, {LITE}"]
    first, _, last = (cell.config for cell in config.cells)
    assert first.out == str(tmp_path / "out/photos/packaged-efficientnet_lite0")
    assert (first.backbone, first.arms(), first.jobs) == (LITE, ("pretrained", "scratch"), 2)
    assert (first.lr, first.images) == (0.01, 500)
    assert first.seeds == [0, 1, 2], "the file wins over the variant"
    assert (last.lr, last.fractions) == (RunConfig().lr, [1.0]), "a data set's own setting wins"


def test_every_fault_of_the_file_is_named_at_once(read):
    text = f"""
backbones: [{LITE}, packaged/squeezenet1_2]
data:
  photos: {{recipe: classify, data: no-such-folder}}
  cells: {{recipe: detect, image_sizes: 64}}
  signs: {{recipe: clasify}}
  "a/b": {{recipe: classify}}
  streets: {{recipe: detect, init: [scratch, scratch]}}
  cars: {{recipe: detect, out: elsewhere, variant: smal}}
label_smoothing: 0.2
lrate: 0.1
budget: 2h
"""
    with pytest.raises(InputError) as caught:
        read(text)
    said = str(caught.value)
    for part in (
        "Unknown backbone 'packaged/squeezenet1_2'. Did you mean 'packaged/squeezenet1_1'",
        "data.photos: --data no-such-folder: there is no file or folder of this name.",
        "data.cells: Unknown setting 'image_sizes'. Did you mean 'image_size'",
        "data.signs: Unknown recipe 'clasify'",
        "a name in data to be letters, digits",
        "data.streets: Expected --init to name each arm once",
        "data.cars: out is not set in a map",
        "data.cars: Unknown variant 'smal'",
        "label_smoothing is no setting of the recipes of cells, streets, cars. Give it below data.photos.",
        "Unknown setting 'lrate'. Did you mean",
        "budget is not set in a map",
    ):
        assert part in said, part
    assert re.search(r"11 fault\(s\), nothing was started", said)
    for text, part in (
        ("data: 3", "names of data sets"),
        (TEXT.replace(f"[{LITE}, {SQUEEZE}]", f"[{LITE}, {LITE}]"), "a list of different names"),
        (TEXT.replace("seeds: [0, 1, 2]", "seeds: many"), "Expected --seeds to be a list"),
        ("- 1", "a mapping of settings"),
    ):
        with pytest.raises(InputError, match=re.escape(part)):
            read(text)


def test_the_map_is_the_comparisons_side_by_side(read, recipes, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_map(read()) == out / "map.html"
    assert len(recipes.calls) == RUNS
    made = read_map(out)
    assert [cell.status for cell in made.cells] == ["finished"] * 3
    compared = 0
    for cell in made.cells:
        found = compare([out / cell.folder])
        assert (out / cell.folder / "report.html").is_file()
        for gap in cell.gaps:
            (known,) = [e for e in found.evidence if e.fraction == gap.fraction and e.metric == found.monitor]
            assert (gap.mean, gap.low, gap.high, gap.p_value) == (
                known.mean, known.low, known.high, known.p_value,
            )  # fmt: skip
            scores = [cell.score(arm, gap.fraction).mean for arm in (gap.arm, gap.baseline)]
            assert gap.relative == pytest.approx((scores[0] - scores[1]) / max(scores))
            assert gap.test == pytest.approx(gap.mean), "both test scores are 0.01 lower"
            compared += 1
    assert compared == 5
    gaps = [gap for cell in made.cells for gap in cell.gaps]
    assert [gap.p_map for gap in gaps] == holm([gap.p_value for gap in gaps])
    assert made.panels == [("pretrained", "scratch", 0.1), ("pretrained", "scratch", 1.0)]
    table = json.loads((out / "map.json").read_text())
    assert [cell["gaps"][0]["answer"] for cell in table["cells"]] == [c.gaps[0].answer for c in made.cells]
    assert "seconds" not in json.dumps(table), "what was measured is in a file of its own"
    cost = json.loads((out / "map_cost.json").read_text())
    assert cost["seconds"] == pytest.approx(51.0 * RUNS), "50, 51 and 52 seconds a run"
    page = (out / "map.html").read_text()
    assert f"cells, {SQUEEZE}: not asked for" in page
    assert page.count("not asked") >= 3, "one cell without a comparison, and a fraction of another"
    assert 'href="photos/packaged-efficientnet_lite0/report.html"' in page
    assert len(list((out / "figures").glob("map-*.svg"))) == 2
    assert "3 of 3 cells are finished." in capsys.readouterr().out
    # Again: nothing is trained, and every byte is the same.
    before = {name: (out / name).read_bytes() for name in ("map.json", "map.html", PLAN_FILE)}
    run_map(read())
    assert len(recipes.calls) == RUNS
    assert before == {name: (out / name).read_bytes() for name in before}


def test_what_failed_is_named_counted_and_on_the_page_and_is_tried_again(read, recipes, tmp_path):
    broken = "photos/packaged-efficientnet_lite0/scratch-f1-s1"
    recipes.broken = {broken}
    with pytest.raises(RunError, match="1 of 2 cells of the map are not complete") as caught:
        run_map(read(SMALL))
    reason = f"photos, {LITE}: failed, 11 of 12 runs finished: scratch-f1-s1: RunError: the loss is no number"
    assert reason in str(caught.value)
    assert len(recipes.calls) == SMALL_RUNS, "the other runs and cells are trained"
    page = (tmp_path / "out/map.html").read_text()
    assert reason in page
    assert "11 of 12 runs" in page
    cells = json.loads((tmp_path / "out/map.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["failed", "finished"]
    assert len(cells[0]["gaps"]) == 2, "what is known of the cell is shown"
    with pytest.raises(RunError, match="1 of 2 cells"):
        publish_map(read(SMALL))
    recipes.broken = set()
    run_map(read(SMALL))
    assert recipes.calls[SMALL_RUNS:] == [broken]


def test_a_command_that_cannot_begin_a_cell_names_it_too(read, recipes, tmp_path, monkeypatch):
    def refuse(config):
        raise InputError("Expected two identities.")

    config = read()
    monkeypatch.setattr(config.cells[0].recipe, "main", refuse)
    with pytest.raises(RunError, match="2 of 3 cells"):
        run_map(config)
    cells = json.loads((tmp_path / "out/map.json").read_text())["cells"]
    assert cells[0]["problems"] == ["InputError: Expected two identities."]
    assert (cells[0]["status"], cells[0]["gaps"], cells[2]["status"]) == ("failed", [], "finished")
    with pytest.raises(RunError, match="failed, 0 of 12 runs finished: InputError: Expected two identities"):
        publish_map(read())
    run_map(read())
    # A run that failed under an earlier plan, which had more seeds, is no fault of this one.
    earlier = tmp_path / "out" / read_map(tmp_path / "out").cells[0].folder / "scratch-f1-s7"
    earlier.mkdir()
    (earlier / "config.yaml").write_text("{}")
    (earlier / "error.txt").write_text("RunError: the loss is no number")
    assert {(cell.status, cell.problems) for cell in read_map(tmp_path / "out").cells} == {("finished", ())}


@pytest.mark.slow
def test_the_plan_counts_the_cells_that_can_be_trained(read, monkeypatch, capsys):
    config, broken = read(SMALL), {"photos"}

    def cost(cell):
        if cell.name.partition(",")[0] in broken:
            raise InputError("Expected two identities.")
        return 6, 3000, 120.0

    monkeypatch.setattr(map_cost, "_cost", cost)
    one = "1 of 2 cells, 6 runs, 3,000 images, about 2.0 min here"
    for name, plan in (("photos", one), ("cells", "0 of 2 cells")):
        broken.add(name)
        with pytest.raises(RunError, match=f"{len(broken)} of 2 cells cannot be trained:\n.*two identities"):
            map_cost.print_cost(config)
        assert f"\nplan: {plan}\nNothing was started.\n" in capsys.readouterr().out
    broken.clear()
    map_cost.print_cost(config)
    assert "\nplan: 2 cells, 12 runs, 6,000 images, about 4.0 min here\n" in capsys.readouterr().out


def test_a_fault_after_the_runs_is_a_failure_until_it_is_gone(read, recipes, tmp_path, monkeypatch):
    config, cell = read(), read().cells[0]
    main = cell.recipe.main

    def no_figure(one):
        main(one)
        raise RunError("report.html is written, but a part could not be drawn")

    monkeypatch.setattr(config.cells[0].recipe, "main", no_figure)
    with pytest.raises(RunError, match=rf"photos, {LITE}: failed, 12 of 12 runs finished: Run"):
        run_map(config)
    assert publish_map(read()), "compared again, without the fault"
    table = tmp_path / "out" / read_map(tmp_path / "out").cells[0].folder / "comparison.json"
    for damage in ("{", "[]", '{"runs": [{}]}'):
        table.write_text(damage)
        (first, *others) = read_map(tmp_path / "out").cells
        assert (first.status, {each.status for each in others}) == ("failed", {"finished"})
        assert "comparison.json is damaged" in first.state
    publish_map(read())
    # A figure of one cell that cannot be drawn does not keep the other cells from the page.
    monkeypatch.setattr(running, "write_report", mock.Mock(side_effect=RunError("a part could not be drawn")))
    with pytest.raises(RunError, match="3 of 3 cells"):
        publish_map(read())


def test_a_process_beside_the_first_writes_nothing(read, recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "is_first", lambda: False)
    config = read()
    for cell in config.cells:
        monkeypatch.setattr(cell.recipe, "main", mock.Mock(side_effect=RunError("no")))
    assert run_map(config) == tmp_path / "out/map.html"
    assert not (tmp_path / "out").exists()


def test_a_panel_holds_differences_to_its_own_baseline():
    def gap(baseline):
        return Gap("pretrained", baseline, 1.0, 1, 0.1, 0.05, 0.2, 0.01, 0.01, 0.2, "", None, "pretrained")

    def cell(data, baseline):
        return MapCell("a", data, "classify", data, (1.0,), 2, 2, (), False, {}, (), (gap(baseline),))

    made = TransferMap((cell("x", "scratch"), cell("y", "frozen")), ())
    assert made.panels == [("pretrained", "frozen", 1.0), ("pretrained", "scratch", 1.0)]
    assert [line.split(" of 1 cells")[-1] for line in made.sentences()[1:]] == [
        " (pretrained against frozen).", " (pretrained against scratch).",
    ]  # fmt: skip


def test_an_array_trains_one_run_a_task_and_the_page_comes_after(
    read, recipes, tmp_path, monkeypatch, capsys
):
    read(SMALL)
    monkeypatch.setattr(verb, "load_recipe", lambda name, beside: recipes(name))
    out = tmp_path / "out"
    command = [str(tmp_path / "map.yaml"), "--out", str(out)]
    for number in range(SMALL_RUNS):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        assert verb.main(command) == 0
    assert len(set(recipes.calls)) == len(recipes.calls) == SMALL_RUNS
    assert not (out / "map.html").exists()
    with pytest.raises(SystemExit) as ended:
        verb.main([*command, "--only", str(SMALL_RUNS)])
    assert ended.value.code == 2
    assert f"Use sbatch --array=0-{SMALL_RUNS - 1}" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "one")
    with pytest.raises(InputError, match="SLURM_ARRAY_TASK_ID"):
        verb.main(command)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert verb.main([*command, "--report"]) == 0
    assert len(recipes.calls) == SMALL_RUNS
    table = json.loads((out / "map.json").read_text())
    assert {cell["status"] for cell in table["cells"]} == {"finished"}
    # The runs are those of the same command without an array.
    config = dataclasses.replace(read(SMALL), out=tmp_path / "alone")
    cells = [
        dataclasses.replace(
            c, config=dataclasses.replace(c.config, out=c.config.out.replace("/out/", "/alone/"))
        )
        for c in config.cells
    ]
    run_map(dataclasses.replace(config, cells=tuple(cells)))
    assert json.loads((tmp_path / "alone/map.json").read_text()) == table


def test_rates_that_are_not_chosen_yet_stop_an_array(read):
    with pytest.raises(InputError, match="rates of lrs are not chosen yet"):
        train_one_of(read(TEXT + "lrs: [0.1, 0.01]\n"), 0)


def test_a_folder_without_a_map_is_refused(tmp_path):
    with pytest.raises(InputError, match=PLAN_FILE):
        write_map(tmp_path)


scores = st.floats(min_value=0, max_value=1e6)


@given(first=scores, second=scores, factor=st.floats(min_value=0.01, max_value=100))
def test_the_relative_gap_has_no_unit_and_one_scale(first, second, factor):
    gap = relative_gap(first, second, "max")
    assert -1 <= gap <= 1
    assert relative_gap(second, first, "max") == -gap == relative_gap(first, second, "min")
    if min(first, second) > 1e-3:
        assert relative_gap(factor * first, factor * second, "max") == pytest.approx(gap)
    assert (gap > 0) == (first > second) or first - second < 1e-9
    assert relative_gap(-1.0, second, "max") is None
    assert relative_gap(float("nan"), second, "max") is None
