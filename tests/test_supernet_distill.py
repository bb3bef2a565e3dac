"""Losses of taught subnets: their gradients are those of the divergences they stand for."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from supernet.distill import DISTILLATIONS, adaptive_alpha, label_loss, soft_cross_entropy


def logits(scale=1.0, batch=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(batch, classes, generator=generator, dtype=torch.float64)).float().requires_grad_()


def gradient(loss, student):
    (grad,) = torch.autograd.grad(loss, student)
    return grad


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_no_gradient_reaches_the_teacher_and_the_loss_is_finite(name):
    student, teacher = logits(30.0), logits(30.0, seed=1)  # far apart: probabilities underflow
    loss = DISTILLATIONS[name](student, teacher, torch.arange(6) % 5, 0.1)
    loss.backward()
    assert teacher.grad is None
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_soft_cross_entropy_has_the_gradient_of_kl():
    student, teacher = logits(), logits(seed=1)
    soft = gradient(soft_cross_entropy(student, teacher), student)
    kl = F.kl_div(F.log_softmax(student, 1), F.softmax(teacher.detach(), 1), reduction="batchmean")
    torch.testing.assert_close(soft, gradient(kl, student))


def divergences(student, teacher):
    """Both alpha-divergences by their definition, sum q (p/q)^a - 1 over a(a-1), a -> 1 being KL(p || q)."""
    p, q = teacher.detach().softmax(1), student.softmax(1)
    return ((q * (p / q) ** -1).sum(1) - 1) / 2, (p * (p / q).log()).sum(1)


def test_adaptive_alpha_is_the_larger_divergence_of_each_image_with_its_gradient():
    student, teacher = logits(0.5), logits(0.5, seed=1)  # ratios below the clip of 5
    backward, forward = divergences(student, teacher)
    assert (student.softmax(1) / teacher.softmax(1)).max() < 5
    larger = torch.maximum(backward, forward).mean()
    loss = adaptive_alpha(student, teacher)
    torch.testing.assert_close(loss, larger)
    torch.testing.assert_close(gradient(loss, student), gradient(larger, student), rtol=1e-4, atol=1e-6)


def test_adaptive_alpha_uses_each_divergence_where_it_is_the_larger():
    vague, sure = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])  # ratios below the clip
    for student, teacher, larger in ((vague, sure, "backward"), (sure, vague, "forward")):
        backward, forward = divergences(student, teacher)
        assert (backward > forward).all() == (larger == "backward")
        torch.testing.assert_close(adaptive_alpha(student, teacher), torch.maximum(backward, forward).mean())


def test_the_clip_bounds_the_gradient_of_a_student_that_invents_a_class():
    student = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-20.0, 0.0, 0.0]])
    assert gradient(adaptive_alpha(student, teacher), student).abs().max() <= 5.5


def test_a_class_that_the_teacher_rules_out_does_not_decide_the_divergence():
    """Unclipped, the third class would make α = -1 the larger one, whose clipped gradient is next to nothing here."""
    teacher = torch.tensor([[0.5, 0.5, 1e-9]]).log()
    student = torch.tensor([[0.999, 0.001, 1e-4]]).log().requires_grad_()
    backward, forward = divergences(student, teacher)
    assert backward > forward
    torch.testing.assert_close(
        gradient(adaptive_alpha(student, teacher), student), gradient(soft_cross_entropy(student, teacher), student)
    )


def test_labels_may_be_mixed():
    student, labels = logits(), torch.arange(6) % 5
    hot = F.one_hot(labels, 5).float()
    torch.testing.assert_close(label_loss(student, hot, 0.1), label_loss(student, labels, 0.1))
    assert label_loss(torch.zeros(2, 10), torch.tensor([0, 1])) == pytest.approx(math.log(10))


def test_ce_kd_is_the_sum_of_both():
    student, teacher, labels = logits(), logits(seed=1), torch.arange(6) % 5
    both = DISTILLATIONS["ce_kd"](student, teacher, labels, 0.1)
    torch.testing.assert_close(both, label_loss(student, labels, 0.1) + soft_cross_entropy(student, teacher))
    torch.testing.assert_close(DISTILLATIONS["none"](student, teacher, labels, 0.1), label_loss(student, labels, 0.1))
