"""See what a network does: layer arithmetic, filters, activations, attribution, DeepDream, style transfer.

Names are imported when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.interpret.activations import (
        Excitation,
        activation_maps,
        activation_sheet,
        top_images,
    )
    from visionkit.interpret.arithmetic.formulas import (
        Field,
        Window,
        multiply_adds,
        output_size,
        parameters,
        receptive_field,
        same_padding,
        transposed_output_size,
    )
    from visionkit.interpret.arithmetic.layer_table import (
        LayerTable,
        layer_table,
    )
    from visionkit.interpret.arithmetic.measured_field import (
        MeasuredField,
        measure_field,
    )
    from visionkit.interpret.attribution.boxes import (
        BoxScore,
        pointing_game,
    )
    from visionkit.interpret.attribution.curves import (
        PixelCurves,
        pixel_curves,
    )
    from visionkit.interpret.attribution.explain import (
        Explanation,
        explain,
    )
    from visionkit.interpret.attribution.methods import (
        grad_cam,
        integrated_gradients,
        occlusion,
        saliency,
    )
    from visionkit.interpret.attribution.overlay import (
        overlay,
    )
    from visionkit.interpret.attribution.scores import (
        Score,
        box_score,
        class_score,
        mask_score,
        word_scores,
    )
    from visionkit.interpret.filters import (
        filter_sheet,
        weight_sheet,
    )
    from visionkit.interpret.maps import (
        find_levels,
        resolve_layer,
    )
    from visionkit.interpret.subject import (
        Subject,
        open_subject,
        whole_network,
    )
    from visionkit.interpret.synthesis.colors import (
        luminance,
        match_colors,
        match_luminance,
        with_colors,
    )
    from visionkit.interpret.synthesis.dream import (
        DreamResult,
        dream,
    )
    from visionkit.interpret.synthesis.style import (
        StyleResult,
        mix_styles,
        transfer_style,
    )
    from visionkit.interpret.synthesis.style_losses import (
        Style,
        gram,
    )
    from visionkit.interpret.synthesis.visualize import (
        Visualization,
        visualize,
    )

__all__ = [
    "BoxScore",
    "DreamResult",
    "Excitation",
    "Explanation",
    "Field",
    "LayerTable",
    "MeasuredField",
    "PixelCurves",
    "Score",
    "Style",
    "StyleResult",
    "Subject",
    "Visualization",
    "Window",
    "activation_maps",
    "activation_sheet",
    "box_score",
    "class_score",
    "dream",
    "explain",
    "filter_sheet",
    "find_levels",
    "grad_cam",
    "gram",
    "integrated_gradients",
    "layer_table",
    "luminance",
    "mask_score",
    "match_colors",
    "match_luminance",
    "measure_field",
    "mix_styles",
    "multiply_adds",
    "occlusion",
    "open_subject",
    "output_size",
    "overlay",
    "parameters",
    "pixel_curves",
    "pointing_game",
    "receptive_field",
    "resolve_layer",
    "saliency",
    "same_padding",
    "top_images",
    "transfer_style",
    "transposed_output_size",
    "visualize",
    "weight_sheet",
    "whole_network",
    "with_colors",
    "word_scores",
]

_HOMES = {
    "activations": (
        "Excitation",
        "activation_maps",
        "activation_sheet",
        "top_images",
    ),
    "arithmetic.formulas": (
        "Field",
        "Window",
        "multiply_adds",
        "output_size",
        "parameters",
        "receptive_field",
        "same_padding",
        "transposed_output_size",
    ),
    "arithmetic.layer_table": (
        "LayerTable",
        "layer_table",
    ),
    "arithmetic.measured_field": (
        "MeasuredField",
        "measure_field",
    ),
    "attribution.boxes": (
        "BoxScore",
        "pointing_game",
    ),
    "attribution.curves": (
        "PixelCurves",
        "pixel_curves",
    ),
    "attribution.explain": (
        "Explanation",
        "explain",
    ),
    "attribution.methods": (
        "grad_cam",
        "integrated_gradients",
        "occlusion",
        "saliency",
    ),
    "attribution.overlay": ("overlay",),
    "attribution.scores": (
        "Score",
        "box_score",
        "class_score",
        "mask_score",
        "word_scores",
    ),
    "filters": (
        "filter_sheet",
        "weight_sheet",
    ),
    "maps": (
        "find_levels",
        "resolve_layer",
    ),
    "subject": (
        "Subject",
        "open_subject",
        "whole_network",
    ),
    "synthesis.colors": (
        "luminance",
        "match_colors",
        "match_luminance",
        "with_colors",
    ),
    "synthesis.dream": (
        "DreamResult",
        "dream",
    ),
    "synthesis.style": (
        "StyleResult",
        "mix_styles",
        "transfer_style",
    ),
    "synthesis.style_losses": (
        "Style",
        "gram",
    ),
    "synthesis.visualize": (
        "Visualization",
        "visualize",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
