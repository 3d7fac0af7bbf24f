"""All members of an ensemble as one module: images and metadata in, each member's probabilities and their mean out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skinlesion.data.image_io import ImageInput
from skinlesion.inference.tta import views
from skinlesion.model.network import Network
from skinlesion.training.checkpoint import TrainedModel


class Voter(nn.Module):
    """One member: its normalisation, its network, the vote of an image's flips and turns.

    Args:
        network: In evaluation mode.
        spec: What its backbone expects of an image.
        tta: Which flips and turns vote, see `turns.views`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, spec: ImageInput, *, tta: str) -> None:
        super().__init__()
        self.network, self.tta = network, tta
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None])  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None])

    def forward(self, pixels: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Let the image's turns vote.

        Args:
            pixels: (B, H, W, 3) uint8.
            metadata: (B, M).

        Returns:
            Probabilities (B, K); logits (B, K) and pooled features (B, C) of the image as it is.
        """
        image = pixels.permute(0, 3, 1, 2).float().div(255).sub(self.mean).div(self.std)  # (B, 3, H, W)
        turns = list(views(image, self.tta))
        logits, pooled = self.network.embed(torch.cat(turns), metadata.repeat(len(turns), 1))  # (T * B, K), (T * B, C)
        by_turn = logits.reshape(len(turns), -1, logits.shape[1])  # (T, B, K)
        features = pooled.reshape(len(turns), -1, pooled.shape[1])[0]  # (B, C)
        return by_turn.softmax(dim=2).mean(dim=0), by_turn[0], features


class Voting(nn.Module):
    """The soft vote of several members.

    Args:
        models: The members.
        tta: Which flips and turns of an image vote.
    """

    def __init__(self, models: Sequence[TrainedModel], *, tta: str) -> None:
        super().__init__()
        self.voters = nn.ModuleList(Voter(model.network, model.spec, tta=tta) for model in models)
        self.sizes = list(dict.fromkeys(model.spec.size for model in models))
        self.channels = [model.network.backbone.channels for model in models]
        self._inputs = [self.sizes.index(model.spec.size) for model in models]

    def forward(self, metadata: Tensor, images: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Let the members vote.

        Args:
            metadata: (B, M).
            images: (B, H, W, 3) uint8, fitted to each of `sizes`.

        Returns:
            Probabilities of the members (M, B, K) and their mean (B, K); of the images as they are the members' logits
            (M, B, K) and pooled features, (B, C) each.
        """
        votes = [voter(images[which], metadata) for voter, which in zip(self.voters, self._inputs, strict=True)]
        members = torch.stack([vote for vote, _, _ in votes])  # (M, B, K)
        logits = torch.stack([logits for _, logits, _ in votes])  # (M, B, K)
        return members, members.mean(dim=0), logits, [pooled for _, _, pooled in votes]
