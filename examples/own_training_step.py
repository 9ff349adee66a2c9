"""MIRA inside a torch training loop of your own: two views, swapped prediction (MIRA, eq. 8).

Run it with ``python examples/own_training_step.py``; it needs torch.
"""

import torch
from torch.nn import functional as F

import infoassign as ia


def mira_loss(first: torch.Tensor, second: torch.Tensor, *, tau_student: float = 0.1) -> torch.Tensor:
    """Return the loss of two views' logits, each (B, K) cosines with the prototypes.

    The labels are constants of the step: no gradient flows through an assignment.
    """
    ours = ia.mira(first, beta=0.9, temperature=0.225, tol=1e-3).plan
    theirs = ia.mira(second, beta=0.9, temperature=0.225, tol=1e-3).plan
    return (F.cross_entropy(second / tau_student, ours) + F.cross_entropy(first / tau_student, theirs)) / 2


def main() -> None:
    """Pull two noisy views of clustered points together, from random weights."""
    torch.manual_seed(0)
    centres = torch.randn(8, 20)
    encoder = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    prototypes = torch.nn.Parameter(torch.randn(16, 16))
    optimizer = torch.optim.SGD([*encoder.parameters(), prototypes], lr=0.3, momentum=0.9)
    for step in range(101):
        points = centres[torch.randint(8, (256,))]
        views = [points + 0.3 * torch.randn_like(points) for _ in range(2)]
        logits = [F.normalize(encoder(view)) @ F.normalize(prototypes).T for view in views]
        loss = mira_loss(*logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            assignment = ia.mira(logits[0].detach(), beta=0.9, temperature=0.225, tol=1e-3)
            print(f"step {step:3d}  loss {loss.item():.3f}  the labels carry {assignment.mutual_information:.2f} nats")


if __name__ == "__main__":
    main()
