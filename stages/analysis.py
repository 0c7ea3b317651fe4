# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which normalization should a new head use, and does gradient clipping help?
#
# MobileNetV2 (ImageNet) is adapted to CIFAR-10: its end and a new head train, everything before is frozen. The
# head normalises with BatchNorm, LayerNorm or Filter Response Normalization (FRN), each with and without gradient
# clipping. This notebook reads the study's result files; it trains nothing, and `dvc repro` executes it whenever a
# result changes.

# %%
import io

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, Markdown
from matplotlib.ticker import MaxNLocator

from stages.core.params import load_params
from stages.models.configurations import color_of, split_key
from stages.reporting import wording
from stages.reporting.plotting import DPI
from stages.reporting.results import load_results, tabulate

params = load_params()
results = load_results(params.norms)
findings = wording.load_findings(params)


def show(figure: plt.Figure) -> Image:
    """The figure as a picture in this notebook."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return Image(buffer.getvalue())


Markdown(f"{results.caption}. {wording.describe_ranking(findings)}")

# %% [markdown]
# ## All configurations at a glance
#
# Means over seeds ± standard deviations; `gap` is training accuracy, measured without augmentation or dropout, less
# test accuracy.

# %%
header, rows = tabulate(results.metrics)
pd.DataFrame(rows, columns=header).set_index("")

# %%
Image("plots/figures/accuracy.png")

# %% [markdown]
# ## Each configuration
#
# Loss of every seed over epochs, the gradient norm before clipping, and the loss around the first seed's weights.


# %%
def draw_configuration(key: str) -> plt.Figure:
    """Three panels: loss, gradient norm, landscape."""
    curves, surface, color = results.curves[key], results.landscapes[key], color_of(split_key(key)[0])
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2))
    for _, run in curves.groupby("seed"):
        left.plot(run["epoch"], run["train_loss"], color=color, ls=":", lw=1)
        left.plot(run["epoch"], run["val_loss"], color=color, lw=1)
        middle.plot(run["epoch"], run["grad_norm"], color=color, lw=1)
    left.set(xlabel="epoch", ylabel="loss (nats)", title="training (dotted), validation")
    middle.set(xlabel="epoch", ylabel="total gradient norm", title="gradient norm, mean over steps", ylim=(0, None))
    for axes in (left, middle):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    contours = right.contourf(surface["alphas"], surface["betas"], surface["loss"].T, levels=20, cmap="viridis")
    right.plot(0, 0, "w+")
    right.set(xlabel="alpha", ylabel="beta", title="validation loss (nats)")
    figure.colorbar(contours, ax=right)
    return figure


def describe_configuration(key: str) -> str:
    """What the figures of one configuration are, in words."""
    metrics, gradients, surface = findings.metrics[key], findings.gradients[key], findings.landscapes[key]
    place = findings.ranking.index(key) + 1
    text = (
        f"Test accuracy {100 * metrics['test_accuracy']:.2f}% (place {place} of {len(findings.ranking)}), best epoch "
        f"{metrics['best_epoch']:.1f} on average, {100 * metrics['generalization_gap']:.2f} points between training "
        f"and test. At the trained weights a small batch's gradient has norm {gradients['grad_norm']:.2f}, and "
        f"successive batches a cosine of {gradients['cosine']:.3f}. Of the landscape, "
        f"{100 * surface['flat_share']:.0f}% is within 0.1 nats of the centre."
    )
    if metrics["clip_fraction"] > 0:
        text += (
            f" Clipping acted on {100 * metrics['clip_fraction']:.0f}% of the steps and scaled their gradients by "
            f"{metrics['clip_coefficient']:.2f} on average."
        )
    return text


# CONFIGURATIONS

# %% [markdown]
# ## Which differences are real

# %%
paragraphs = [wording.describe_significance(findings, family) for family in findings.contrasts["family"].unique()]
Markdown("\n\n".join([*paragraphs, wording.describe_power(findings)]))

# %%
Image("plots/statistics/contrasts.png")

# %% [markdown]
# ## Gradient flow

# %%
Markdown(f"{wording.describe_gradients(findings)} {wording.describe_clipped_steps(findings)}")

# %%
Image("plots/figures/gradient_layers.png")

# %%
Image("plots/figures/update_ratios.png")

# %% [markdown]
# ## Landscapes

# %%
Markdown(wording.describe_landscapes(findings))

# %%
Image("plots/figures/landscape_contours.png")

# %% [markdown]
# ## Curvature
#
# The Hessian of the validation loss over the head's parameters, at the trained weights and around them.

# %%
Markdown(f"{wording.describe_curvature(findings)} {wording.describe_correlations(findings)}")

# %%
Image("plots/curvature_figures/densities.png")

# %%
Image("plots/curvature_figures/slices.png")

# %%
Image("plots/curvature_figures/correlations.png")

# %% [markdown]
# ## Errors

# %%
Markdown(wording.describe_errors(findings))

# %%
Image("plots/errors/confusion.png")

# %%
Image("plots/errors/contested.png")

# %% [markdown]
# ## In practice

# %%
advice = [wording.recommend_norm(findings), wording.explain_distances(findings), wording.recommend_clipping(findings)]
Markdown("\n\n".join(advice))
