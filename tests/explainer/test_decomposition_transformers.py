"""Contextual decomposition of transformers: torch's layers, token models, and torchvision's ViT and Swin."""

import pytest
import torch
import torchvision
from test_decomposition_attention import CAUSAL, PADDING, ROWS, STEPS, WIDTH, Pooled, check_ends, data, lively
from torch import nn

from explainer.decomposition import cd, cd_text


def encoder(forward, **options):
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, **{"batch_first": True, **options})
    return Pooled(nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH)), forward)


TRANSFORMERS = {
    "encoder": lambda: encoder(lambda m, x: m(x)),
    "norm first, gelu": lambda: encoder(lambda m, x: m(x), norm_first=True, activation="gelu"),
    "steps first": lambda: encoder(lambda m, x: m(x.transpose(0, 1)).transpose(0, 1), batch_first=False),
    "causal": lambda: encoder(lambda m, x: m(x, mask=CAUSAL, is_causal=True)),
    "padding": lambda: encoder(lambda m, x: m(x, src_key_padding_mask=PADDING.expand(len(x), -1))[:, :2]),
    "left-aligned padding": lambda: encoder(
        lambda m, x: m(x, src_key_padding_mask=(torch.arange(STEPS) > 2).expand(len(x), -1))[:, :3]
    ),
    "padding of the input": lambda: encoder(lambda m, x: m(x, src_key_padding_mask=(x == 0).all(-1))[:, :2]),
    "decoder": lambda: Pooled(
        nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True), lambda m, x: m(torch.ones_like(x[:, :3]), x)
    ),
    "decoder, causal": lambda: Pooled(
        nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True), 2),
        lambda m, x: m(x, x, tgt_mask=CAUSAL),
    ),
    "transformer": lambda: Pooled(nn.Transformer(WIDTH, 2, 1, 1, 16, batch_first=True), lambda m, x: m(x, x[:, :2])),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    torch.manual_seed(0)
    model, (x, masks) = lively(TRANSFORMERS[name]()), data()
    x[:, 2:] *= "of the input" not in name
    fused = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        scores = cd(model, x, masks)
        assert model.training and torch.backends.mha.get_fastpath_enabled() == fused
        check_ends(scores, model.eval()(x))
    scores = cd(model.float(), x.float(), masks)
    check_ends(scores, model(x.float()), 1e-4)


def test_an_encoder_whose_fused_layers_give_another_output_is_refused():
    torch.manual_seed(0)
    padding = (torch.arange(STEPS) > 2).expand(ROWS, -1)
    model, (x, masks) = (
        lively(encoder(lambda m, x: m(x, src_key_padding_mask=padding.repeat(len(x) // ROWS, 1)))),
        data(),
    )
    with torch.no_grad(), pytest.raises(ValueError, match="gives 0 at padded tokens, and so another output than in tr"):
        cd(model, x, masks)
    check_ends(cd(model, x, masks), model.eval()(x))  # with gradients the fused layers are not taken
    model.module.use_nested_tensor = False
    with torch.no_grad():
        check_ends(cd(model, x, masks), model(x))


class Reader(nn.Module):
    """Embedded tokens with positions and a class token through an encoder, padding told by the ids or the lengths."""

    def __init__(self, by="ids"):
        super().__init__()
        self.embedding, self.by = nn.Embedding(20, WIDTH, padding_idx=0), by
        self.positions, self.token = nn.Parameter(torch.randn(1, 7, WIDTH)), nn.Parameter(torch.randn(1, 1, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=True)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, 3)

    def forward(self, ids, lengths=None):
        padding = ids == 0 if self.by == "ids" else torch.arange(ids.shape[1]) >= lengths[:, None]
        x = self.embedding(ids) + self.positions[:, : ids.shape[1]]
        x = torch.cat([self.token.expand(len(ids), -1, -1), x], 1)
        padding = torch.cat([torch.zeros(len(ids), 1, dtype=torch.bool), padding], 1)
        y = self.encoder(x, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(y.dtype)
        return self.fc(y[:, 0] + (y * kept).sum(1) / kept.sum(1))


@pytest.mark.parametrize("by", ["ids", "lengths"])
def test_token_models_with_attention(by):
    torch.manual_seed(0)
    model, ids, lengths = lively(Reader(by)), torch.randint(1, 20, (3, 7)), torch.tensor([7, 4, 5])
    ids[torch.arange(7) >= lengths[:, None]] = 0
    masks = torch.rand(3, 10, 7) > torch.rand(3, 10, 1)
    masks[:, 0], masks[:, 1] = True, False
    masks = masks & (torch.arange(7) < lengths[:, None])[:, None]
    if by == "ids":
        masks[:, 0] = True
    with torch.no_grad():
        given = lengths if by == "lengths" else None
        check_ends(cd_text(model, ids, masks, lengths=given), model.eval()(ids, given))


class Window(nn.Module):
    """Attention within windows of an image that is rolled, with biases of positions, as in Swin Transformers."""

    def __init__(self, kind):
        super().__init__()
        self.net = torchvision.models.SwinTransformer(
            [2, 2], 8, [2, 2], [2, 4], [3, 3], stochastic_depth_prob=0.5, num_classes=3,
            block=getattr(torchvision.models.swin_transformer, f"SwinTransformerBlock{kind}"),
            downsample_layer=getattr(torchvision.models.swin_transformer, f"PatchMerging{kind}"),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


VISION = {
    "vit": lambda: torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3),
    "swin": lambda: Window(""),
    "swin v2": lambda: Window("V2"),
}


@pytest.mark.parametrize("name", VISION)
def test_vision_transformers(name):
    torch.manual_seed(0)
    model = lively(VISION[name]())
    for head in ("heads", "net"):
        if hasattr(model, head):
            nn.init.normal_(next(reversed(list(getattr(model, head).modules()))).weight)
    x, masks = data((3, 16, 16), 8)
    masks = masks[:, :, :1].expand(-1, -1, 3, -1, -1)
    with torch.no_grad():
        check_ends(cd(model, x, masks), model.eval()(x))
        check_ends(cd(model.float(), x.float(), masks), model(x.float()), 1e-4)
