"""The picture shows what the result says: every panel with its data, units on every axis, nothing on top of another."""

from dataclasses import replace
from itertools import combinations
from uuid import uuid4

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from beamline_ml.records import PowerLaw
from beamline_ml.results.assembly import assemble
from beamline_ml.results.figures import Picture, draw
from beamline_ml.results.publish import publish_result
from tests.results.conftest import PERIOD_S, TAU, N, Q, make_forecast, make_g2, make_relaxation, make_two_time


@pytest.fixture
def picture():
    two_time = make_two_time()
    law = PowerLaw(2.02, 0.05, 0.02, 0.001, True, "The exponent agrees with 2.")
    r_um = np.linspace(0.1, 5, 30)
    kernel = (r_um, np.exp(-r_um), 0.1 + 0 * r_um, r_um > 1.0)
    return Picture(
        "latex", "One.\nTwo.", two_time.age_s, two_time.c2, make_g2(), make_relaxation(), law, make_forecast(), kernel
    )


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title(loc="left")]


def drawn(picture, tmp_path):
    figure = draw(picture)
    figure.savefig(tmp_path / "picture.png")
    return figure


def test_six_panels_with_units(picture, tmp_path):
    figure = drawn(picture, tmp_path)
    assert len(panels(figure)) == 6
    for axes in panels(figure):
        assert "(" in axes.get_xlabel(), axes.get_title(loc="left")
        assert axes.get_ylabel()
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_panels_do_not_overlap(picture, tmp_path):
    figure = drawn(picture, tmp_path)
    renderer = FigureCanvasAgg(figure).get_renderer()
    # The colour bar belongs to the map beside it; its label may reach under the map's title.
    boxes = [axes.get_tightbbox(renderer) for axes in panels(figure)]
    headings = [text.get_window_extent(renderer) for text in figure.texts if text.get_text().strip()]
    titles = [axes.get_title(loc="left") for axes in panels(figure)]
    both = [(titles[k], titles[m]) for k, m in combinations(range(len(boxes)), 2) if boxes[k].overlaps(boxes[m])]
    assert both == []
    assert not any(box.overlaps(heading) for box in boxes for heading in headings)


def test_the_forecast_panel_goes_beyond_the_run(picture, tmp_path):
    axes = next(a for a in panels(drawn(picture, tmp_path)) if "remembered" in a.get_title(loc="left"))
    ends = [line.get_xdata()[-1] for line in axes.lines if len(line.get_xdata())]
    assert max(ends) == pytest.approx(2 * N * PERIOD_S)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {"measured", "95 % band", "forecast by the\nneural ODE"} <= set(labels)


def test_tau_of_q_shows_every_fitted_ring(picture, tmp_path):
    axes = next(a for a in panels(drawn(picture, tmp_path)) if a.get_title(loc="left").startswith("Relaxation"))
    points = axes.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), Q[1:] * 1e4)
    np.testing.assert_allclose(points.get_ydata(), TAU[1:])


def test_a_forecast_that_leaves_rings_out_is_drawn_at_its_own_q(picture, tmp_path):
    whole = make_forecast()
    part = replace(
        whole,
        q_inv_angstrom=whole.q_inv_angstrom[2:],
        **{name: getattr(whole, name)[2:] for name in ("c2", "lower", "upper", "s_q", "s_q_lower", "s_q_upper")},
    )
    figure = drawn(replace(picture, forecast=part), tmp_path)
    assert sum("q = 12 µm⁻¹" in axes.get_title(loc="left") for axes in panels(figure)) == 2


def test_without_a_forecast_the_measured_half_is_drawn(picture, tmp_path):
    figure = drawn(replace(picture, forecast=None, kernel=None), tmp_path)
    assert len(panels(figure)) == 3


def test_a_force_that_no_ring_resolves_has_no_band(picture, tmp_path):
    axes = next(a for a in panels(drawn(picture, tmp_path)) if a.get_title(loc="left").startswith("Learned"))
    band = next(c for c in axes.collections if c.get_label() == "95 % band")
    assert band.get_paths()[0].vertices[:, 0].min() > 1.0
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "too close to resolve" in labels
    everywhere = replace(picture, kernel=(*picture.kernel[:3], np.ones(30, bool)))
    axes = next(a for a in panels(drawn(everywhere, tmp_path)) if a.get_title(loc="left").startswith("Learned"))
    assert "too close to resolve" not in [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_published_result_draws_itself(tiled_root, make_analysis, tmp_path):
    container = tiled_root.create_container("pictures")
    result = publish_result(container, assemble(make_analysis(str(uuid4()))))
    result.plot(tmp_path / "result.png")
    assert (tmp_path / "result.png").stat().st_size > 20_000
    lonely = assemble(make_analysis(str(uuid4()), dynamics=None, forecast=None, kernel_r_um=None, refusal="No."))
    publish_result(container, lonely).plot(tmp_path / "lonely.svg")
    assert "no forecast to rely on" in (tmp_path / "lonely.svg").read_text().lower()
