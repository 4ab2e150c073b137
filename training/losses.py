"""Losses as pure functions of tensors; each cites its equation. The stage decides who is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.diffusion import NoiseSchedule

PixelForm = Literal["noisy", "clean"]


def pixel_loss(output: Tensor, target: Tensor) -> Tensor:
    """Charbonnier distance, mean over [B, 3, H, W]: L1 that is smooth at zero (epsilon 1e-3 of full range)."""
    return torch.sqrt((output - target) ** 2 + 1e-6).mean()


def square_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared distance, mean over [B, 3, H, W]: the L2 loss of DiffBIR's restoration stage (arXiv 2308.15070, section 3)."""
    return F.mse_loss(output, target)


def gradient_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 distance of horizontal and vertical differences: the mini recipes' stand-in for LPIPS."""
    difference = output - target
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def latent_mse(output: Tensor, target: Tensor) -> Tensor:
    """|| z_g - z_h ||^2, mean over all elements (GenDR, equation 6)."""
    return F.mse_loss(output, target)


def denoising_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """|| prediction - target ||^2, mean over [B, C, h, w]: the noise of DDPM, or the velocity eps - z_0 of a rectified flow."""
    return F.mse_loss(prediction, target)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from the standard normal, mean over all elements, in nats."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


def latent_moments(latent: Tensor) -> Tensor:
    """Squared distance of each channel's mean from 0 and deviation from 1, latent [B, C, h, w], mean over channels."""
    values = latent.transpose(0, 1).flatten(1)
    return (values.mean(1) ** 2 + (values.std(1) - 1) ** 2).mean()


# --- GenDR (equations of "GenDR: Lightning Generative Detail Restorator"). real, fake: what the score networks phi and psi say of
# z_t [B, C, h, w], noise or clean latents; means are over all elements.


def score_loss(said: Tensor, target: Tensor) -> Tensor:
    """What a score network is trained by: its noise against the one added (equation 4), or its clean latent against the one that was
    noised (equation 7). Nothing flows into the target."""
    return F.mse_loss(said, target.detach())


def vsd_gradient(real: Tensor, fake: Tensor) -> Tensor:
    """What variational score distillation hands to z_g, eps_phi - eps_psi (equation 4 with w = 1)."""
    return (real - fake).detach()


def with_gradient(output: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient by `output` is `gradient`, divided by the number of elements; its value is half the gradient's mean square."""
    return 0.5 * F.mse_loss(output, (output - gradient).detach())


def score_gap(real: Tensor, fake: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """L_1 = w || phi - psi ||^2 (equation 5; of clean latents in equation 9)."""
    return (weight * (real - fake) ** 2).mean()


def score_identity(real: Tensor, fake: Tensor, reference: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """w < phi - psi, phi - reference >: L_2 by the noise that was added (equation 5), L_2 of clean latents by z_g (equation 7), and
    L_3 by z_h (equation 8)."""
    return (weight * (real - fake) * (real - reference)).mean()


def cid_weight(real: Tensor, clean: Tensor, floor: float = 1e-5) -> Tensor:
    """w [B, 1, 1, 1] = 1 / mean |z_h - f_phi| of each sample, without gradient: w(t) below equation 9, where C is the number of elements
    and the norm L1, as in SiD."""
    distance = (clean - real).detach().abs().flatten(1).mean(1)
    return (1 / distance.clamp_min(floor)).view(-1, *[1] * (real.ndim - 1))


def sid_loss(real: Tensor, fake: Tensor, noise: Tensor, xi: float) -> Tensor:
    """L_2 - xi L_1 of noise predictions (equation 5)."""
    return score_identity(real, fake, noise) - xi * score_gap(real, fake)


def cid_loss(real: Tensor, fake: Tensor, clean: Tensor, xi: float) -> Tensor:
    """L_cid = L_3 - xi L_1 of guided clean latents (equations 8 and 9), clean: z_h."""
    weight = cid_weight(real, clean)
    return score_identity(real, fake, clean, weight) - xi * score_gap(real, fake, weight)


def representation_loss(tokens: Tensor, teacher: Tensor) -> Tensor:
    """L_repa = - mean cosine of projected features and teacher tokens, both [B, N, D] (equation 3)."""
    return -F.cosine_similarity(tokens, teacher, dim=-1).mean()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """softplus(-logit), the mean of each head's patches [B, 1, h, w] and of heads: L_adv of equation 10 as a loss to be minimised."""
    return torch.stack([F.softplus(-logits).mean() for logits in fake]).mean()


def discriminator_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """softplus(fake) + softplus(-real), means as in adversarial_loss(): L_D of equation 1 as a loss to be minimised."""
    return torch.stack([F.softplus(logits).mean() for logits in fake]).mean() + adversarial_loss(real)


# --- InstantIR (arXiv 2410.06551, with the numbers of its training scripts).

TEACHER_STEPS, TEACHER_STRIDE = 50, 20


def noise_loss(said: Tensor, noise: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """L_diff = || eps_theta - eps ||^2 (equation 1), mean over all elements; weight: one, or [B] of each sample."""
    return ((said - noise).square().flatten(1).mean(1) * weight).mean()


def late_noise_weight(timestep: Tensor) -> Tensor:
    """1 - 0.5 cos(pi t / 1000) [B] for timesteps [B]: more for strong noise, the optional weight of stage I."""
    return 1 - 0.5 * torch.cos(torch.pi * timestep / 1000)


def teacher_interval(number: Tensor) -> tuple[Tensor, Tensor]:
    """(s, t) [B] of the n-th [B] of the teacher's 50 steps, n = 1 .. 50: s = 20 n - 1 and t = s - 20, but not below 0."""
    s = TEACHER_STRIDE * number - 1
    return s, (s - TEACHER_STRIDE).clamp(min=0)


def teacher_step(schedule: NoiseSchedule, z: Tensor, conditional: Tensor, blank: Tensor, s: Tensor, t: Tensor, guidance: Tensor) -> Tensor:
    """z_t [B, C, h, w] of the teacher's DDIM step from z_s (above equation 5): a_t x_0 + b_t eps, where both are c + w (c - u) of what
    the two noises, conditional and blank, say; guidance: w [B]."""

    def guided(own: Tensor, other: Tensor) -> Tensor:
        return own + guidance.to(own).reshape(-1, 1, 1, 1) * (own - other)

    clean = guided(*(schedule.clean(z, eps, s, "epsilon") for eps in (conditional, blank)))
    return schedule.add_noise(clean, guided(conditional, blank), t)


def distillation_loss(student: Tensor, target: Tensor, c: float = 0.001) -> Tensor:
    """L_dist (equation 5) by the scripts' pseudo-Huber distance sqrt(d^2 + c^2) - c, mean over all elements; nothing flows into the
    target."""
    return (torch.sqrt((student - target.detach()).square() + c**2) - c).mean()


# --- InstaRevive (equations of "InstaRevive: One-Step Image Enhancement via Dynamic Score Matching"). real, fake: what the frozen and the
# trained score network say of x_t [B, C, h, w]; a gradient is what the output x shall receive. Timesteps: see dynamic_control.py.


def guided(null: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of the real score network: null + scale (conditional - null)."""
    return null + scale * (conditional - null)


def dsm_gradient(real: Tensor, fake: Tensor, noise_level: Tensor) -> Tensor:
    """s_t (eps_real - eps_fake): equation 5 with w = 1, noise_level: s_t [B]."""
    return noise_level.to(real).view(-1, 1, 1, 1) * (real - fake)


def score_gradient(real: Tensor, fake: Tensor, noise_level: Tensor) -> Tensor:
    """(eps_real - eps_fake) / s_t: the difference of the scores -eps / s_t themselves, which equation 5 begins with."""
    return (real - fake) / noise_level.to(real).view(-1, 1, 1, 1)


def normalised_gradient(output: Tensor, clean_real: Tensor, clean_fake: Tensor) -> Tensor:
    """(x0_fake - x0_real) / mean |x - x0_real| of each sample: equation 5 with DMD's w, which absorbs s_t and a_t."""
    return (clean_fake - clean_real) / (output - clean_real).abs().flatten(1).mean(1).view(-1, 1, 1, 1)


def with_summed_gradient(output: Tensor, gradient: Tensor) -> Tensor:
    """with_gradient() in the other customary scaling: the loss's gradient by `output` is `gradient` divided by the batch alone."""
    return with_gradient(output, gradient) * gradient[0].numel()


def dynamic_losses(regression: Mapping[str, Tensor], score: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """alpha L_reg of every regression loss, and (1 - alpha) L_dsm as `score`: by the recipe's weights, among them lambda for `score`,
    they add up to equation 4 under dynamic loss control."""
    return {**{name: alpha.to(loss) * loss for name, loss in regression.items()}, "score": (1 - alpha).to(score) * score}


# --- FluxIR (equations of arXiv 2504.15159). clean: z_0, noise: z_1, z_t = (1 - t) z_0 + t z_1, all [B, C, h, w]; t [B] in 0..1.


def clamped_times(u: Tensor) -> Tensor:
    """t = f(u) [B]: u of U(-eps, 1 + eps) kept within 0..1 (equations 5 and 6), so that of all draws the share eps / (1 + 2 eps) is 0
    itself and as many are 1, where sampling begins."""
    return u.clamp(0, 1)


def velocity_loss(velocity: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """L_MSE = || v - (z_1 - z_0) ||^2 (equations 7 and 8), mean over all elements."""
    return F.mse_loss(velocity, noise - clean)


def implied_latents(velocity: Tensor, clean: Tensor, noise: Tensor, t: Tensor, form: PixelForm) -> tuple[Tensor, Tensor]:
    """What L_P decodes: the latent that a velocity implies, and the one that it should.

    `noisy`, as written: z_0 + t v and z_0 + t (z_1 - z_0), which is z_t (equation 9). `clean`: z_t - t v and z_0. Both weigh the same
    error by t, and evaluate the decoder around z_t or around z_0.
    """
    time = t.reshape(-1, *[1] * (clean.ndim - 1))
    noisy = clean + time * (noise - clean)
    return (clean + time * velocity, noisy) if form == "noisy" else (noisy - time * velocity, clean)


def decoded_loss(output: Tensor, target: Tensor) -> Tensor:
    """L_P = || Dec(..) - Dec(..) ||_1 (equation 9), mean over pixels [B, 3, H, W] in the decoder's -1..1."""
    return F.l1_loss(output, target)
