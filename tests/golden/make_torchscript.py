#!/usr/bin/env python3
"""Writes the TorchScript modules that the importer's tests read, with what PyTorch computes for them.

    make_torchscript.py FOLDER [NAME...]
    make_torchscript.py --as SUFFIX FOLDER NAME...
    make_torchscript.py --check FOLDER MODELS

For each module below: NAME.script.pt and NAME.trace.pt (torch.jit.script, and torch.jit.trace with one sample), and in
expected.pt its inputs and outputs for a batch of one and of three in evaluation mode, and the names and shapes of its
state_dict in order. With --check: each NAME.pt in the folder MODELS is a model file that we wrote from NAME's module with
all values as they were; the module takes it with strict=True and computes what FOLDER/expected.pt says. Made with PyTorch 1.13, and six modules again with PyTorch 2.6 by `--as 2.6`, which
writes NAME.script-2.6.pt and NAME.trace-2.6.pt of the same values and nothing else; run it again after a change and commit
what it wrote.
"""
import math
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn, Tensor


class Mlp(nn.Module):
    shape = (6,)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.25), nn.Linear(8, 4))

    def forward(self, x):
        return self.layers(x)


class Cnn(nn.Module):
    shape = (2, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6, momentum=0.2)
        self.fc = nn.Linear(6 * 2 * 2, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.view(x.size(0), -1))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Residual(nn.Module):
    shape = (1, 6, 6)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer1 = Block(4, 4, 1)
        self.layer2 = Block(4, 6, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


class Depthwise(nn.Module):
    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.project = nn.Conv2d(6, 4, 1)
        self.act = nn.ReLU6()

    def forward(self, x):
        x = self.act(self.expand(x))
        x = F.hardswish(self.norm(self.depthwise(x)))
        return self.project(x).mean([2, 3])


class Dense(nn.Module):
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 3, 3, padding=1)
        self.b = nn.Conv2d(5, 3, 3, padding=1)
        self.c = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = torch.cat([x, F.elu(self.a(x))], 1)
        x = torch.cat([x, F.silu(self.b(x))], dim=1)
        return F.avg_pool2d(self.c(x), 6).flatten(1)


class SqueezeExcite(nn.Module):
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.down = nn.Conv2d(4, 2, 1)
        self.up = nn.Conv2d(2, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = F.leaky_relu(self.conv(x), 0.2)
        gate = F.adaptive_avg_pool2d(x, 1)
        gate = torch.sigmoid(self.up(F.relu(self.down(gate))))
        x = x * gate.expand_as(x)
        return self.fc(x.mean(dim=(-2, -1)))


class TiedEmbedding(nn.Module):
    shape = (5,)
    tokens = 7

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.position = nn.Parameter(torch.randn(1, 5, 4) * 0.1)
        self.register_buffer("position_ids", torch.arange(5).unsqueeze(0))
        self.where = nn.Embedding(5, 4)
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.embed(x) + self.position + self.where(self.position_ids)
        return self.head(torch.tanh(self.fc(x))[:, -1])


class WrittenAttention(nn.Module):
    shape = (5, 6)

    def __init__(self):
        super().__init__()
        self.heads = 2
        self.qkv = nn.Linear(6, 18)
        self.out = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.head = nn.Linear(6, 3)
        self.register_buffer("mask", torch.zeros(6, 6).masked_fill(torch.ones(6, 6).triu(1) > 0, -1e4))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        b = x.shape[0]
        x = torch.cat([self.token.expand(b, -1, -1), x], 1)
        n, t, e = x.shape
        y = self.norm(x)
        qkv = self.qkv(y).reshape(n, t, 3, self.heads, e // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(e // self.heads)) + self.mask
        attention = self.drop(attention.softmax(dim=-1))
        x = x + self.out((attention @ v).transpose(1, 2).reshape(n, t, e))
        return self.head(x[:, -1])


class GroupedNorm(nn.Module):
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3)
        self.norm1 = nn.GroupNorm(2, 6)
        self.conv2 = nn.Conv2d(6, 4, 3, groups=2)
        self.norm2 = nn.GroupNorm(1, 4)

    def forward(self, x):
        x = F.gelu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x)).sum((2, 3)) / 4


class PaddedShortcut(nn.Module):
    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2, 1)
        self.conv2 = nn.Conv2d(6, 6, 3, 1, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + shortcut)
        return self.fc(F.avg_pool2d(x, 3).view(-1, 6))


class CalledTwice(nn.Module):
    shape = (6,)

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.inner = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.again = self.inner
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.inner(F.relu(self.stem(x)))))
        x = F.relu(self.norm(self.again(x)))
        return self.fc(x)


class Chunk(nn.Module):
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3)
        self.conv2 = nn.Conv2d(4, 6, 1)
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        a, b = self.conv1(x).chunk(2, 1)
        x = self.conv2(a * torch.sigmoid(b))
        first, second, third = torch.split(x, [2, 2, 2], dim=1)
        x = torch.stack([first, second - third], 1)
        return self.fc(x.mean((1, 3, 4)))


class Transposed(nn.Module):
    shape = (2, 4, 4)

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.out = nn.Conv2d(6, 3, 4, bias=False)

    def forward(self, x):
        x = F.softplus(self.up(torch.tanh(self.down(x))))
        return self.out(x).squeeze(-1).squeeze(-1)


class Conv1d(nn.Module):
    shape = (12,)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 4, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm1d(4)
        self.conv2 = nn.Conv1d(4, 4, 3, stride=2)
        self.pool = nn.MaxPool1d(2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(self.conv1(x.unsqueeze(1))).relu()
        return self.fc(self.pool(F.hardsigmoid(self.conv2(x))).flatten(1))


class Multihead(nn.Module):
    shape = (4, 6)

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        y = self.attention(x, x, x, need_weights=False)[0]
        return self.fc((x + y).mean(1))


class Encoder(nn.Module):
    shape = (4, 6)

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(4, 6) * 0.1)
        self.first = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, batch_first=True, norm_first=True)
        self.second = nn.TransformerEncoderLayer(6, 3, 8, dropout=0.0, activation="gelu")
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x + self.positions)
        x = self.second(x.transpose(0, 1)).transpose(0, 1)
        return F.log_softmax(self.fc(x[:, 0]), dim=-1)


class Lstm(nn.Module):
    shape = (5,)
    tokens = 7

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.first = nn.LSTM(4, 5, num_layers=2, batch_first=True, dropout=0.2)
        self.second = nn.LSTM(5, 3)
        self.fc = nn.Linear(8, 7)

    def forward(self, x):
        x, state = self.first(self.embed(x))
        y, _ = self.second(x.transpose(0, 1))
        return self.fc(torch.cat([state[0][-1], y[-1]], 1))


class Unet(nn.Module):
    shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(1, 3, 3, padding=1)
        self.down2 = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.up2 = nn.Conv2d(8, 3, 3, padding=1)
        self.up1 = nn.Conv2d(6, 2, 3, padding=1)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x):
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        c = F.relu(self.middle(F.max_pool2d(b, 2)))
        x = F.relu(self.up2(torch.cat([b, self.upsample(c)], 1)))
        x = F.interpolate(x, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.up1(torch.cat([a, x], 1)).mean([2, 3])


class Instance(nn.Module):
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3)
        self.norm1 = nn.InstanceNorm2d(4, affine=True)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.norm2 = nn.InstanceNorm2d(4)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = F.hardtanh(self.norm1(self.conv1(x)), -2.0, 2.0)
        return self.fc(self.norm2(self.conv2(x)).flatten(1))


class Prelu(nn.Module):
    shape = (2, 5, 5)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.act1 = nn.PReLU(4)
        self.fc1 = nn.Linear(36, 5)
        self.act2 = nn.PReLU(init=0.1)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc2(self.act2(self.fc1(self.act1(self.conv(x)).reshape(x.size(0), -1))))


class Sinusoidal(nn.Module):
    shape = (5,)
    tokens = 7

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        angle = torch.arange(8).unsqueeze(1) / 10 ** (torch.arange(0, 6, 2) / 3)
        self.register_buffer("table", torch.cat([torch.sin(angle), torch.cos(angle)], 1).unsqueeze(0))
        self.fc = nn.Linear(6, 4)
        self.scale = math.sqrt(6)

    def forward(self, x):
        x = self.embed(x) * self.scale + self.table[:, : x.size(1)]
        return self.fc(F.relu(x).mean(1))


class ConvNext(nn.Module):
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 2, 2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(4)
        self.wide = nn.Linear(4, 8)
        self.narrow = nn.Linear(8, 4)
        self.gamma = nn.Parameter(torch.full((4,), 0.5))
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.narrow(F.gelu(self.wide(self.norm(y))))
        x = x + y.permute(0, 3, 1, 2)
        return self.fc(x.flatten(2).mean(-1))


class Shuffle(nn.Module):
    """Channel shuffle, dropout of whole channels, adaptive and other pools, arithmetic with numbers."""
    shape = (4, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 6, 1, groups=2)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.drop = nn.Dropout2d(0.2)
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        n, c, h, w = x.size()
        x = self.conv1(x)
        x = x.view(n, 2, 3, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        x = self.drop(self.conv2(2 * x - 1) / 2)
        a = F.adaptive_max_pool2d(x, (2, 2))
        b = F.avg_pool2d(x, 3, 3, ceil_mode=True, count_include_pad=False)
        return self.fc(torch.flatten(1 - a * b / 2.0, 1))


class Gpt(nn.Module):
    """A causal character model as nanoGPT writes it."""
    shape = (5,)
    tokens = 7

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(7, 6)
        self.wpe = nn.Embedding(8, 6)
        self.drop = nn.Dropout(0.1)
        self.ln_1 = nn.LayerNorm(6)
        self.c_attn = nn.Linear(6, 18, bias=False)
        self.c_proj = nn.Linear(6, 6)
        self.ln_2 = nn.LayerNorm(6)
        self.c_fc = nn.Linear(6, 12)
        self.c_out = nn.Linear(12, 6)
        self.lm_head = nn.Linear(6, 7, bias=False)
        self.wte.weight = self.lm_head.weight
        self.register_buffer("bias", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    def forward(self, x):
        b, t = x.size()
        x = self.drop(self.wte(x) + self.wpe(torch.arange(0, t, dtype=torch.long, device=x.device)))
        q, k, v = self.c_attn(self.ln_1(x)).split(6, dim=2)
        q = q.view(b, t, 3, 2).transpose(1, 2)
        k = k.view(b, t, 3, 2).transpose(1, 2)
        v = v.view(b, t, 3, 2).transpose(1, 2)
        a = (q @ k.transpose(-2, -1)) * 0.7071
        a = a.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        y = F.softmax(a, dim=-1) @ v
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, 6))
        x = x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))
        return self.lm_head(x[:, -1, :])


class Vit(nn.Module):
    """Patches, a class token, nn.TransformerEncoder, and attention pooling from a query of its own."""
    shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 3, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8))
        self.query = nn.Parameter(torch.randn(2, 1, 8))
        self.pool = nn.MultiheadAttention(8, 4)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = self.encoder(x).transpose(0, 1)
        x, _ = self.pool(self.query.expand(-1, x.shape[1], -1), x, x, need_weights=False)
        return self.fc(x.transpose(0, 1).reshape(-1, 16))


class Mixed(nn.Module):
    """What the others have not: matrices of one's own, volumes, odd paddings, unbind, movedim, division."""
    shape = (3, 4, 6)

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.shift = nn.Parameter(torch.randn(5))
        self.factor = nn.Parameter(torch.tensor(0.7))
        self.same = nn.Conv1d(3, 4, 2, padding="same")
        self.volume = nn.Conv3d(1, 2, (2, 2, 3))
        self.bilinear = nn.Parameter(torch.randn(4, 4))
        self.unused = nn.Parameter(torch.randn(3))
        self.register_buffer("mask", torch.tensor([True, False, True, True, False]))
        self.fc = nn.Linear(28, 3)

    def forward(self, x):
        n = x.size(0)
        y = torch.matmul(x, self.matrix) + self.shift             # [n, 3, 4, 5]
        y = (y * self.factor).masked_fill(self.mask, 0.5)
        a, b, c = y.unbind(1)                                     # [n, 4, 5]
        d = torch.bmm(a.transpose(1, 2), b) / (c.pow(2).mean(dim=1, keepdim=True) + 1.0)  # [n, 5, 5]
        e = self.same(y.mean(-1)).clamp(min=-0.5, max=0.8)        # [n, 4, 4]
        e = torch.tanh(e @ self.bilinear) * e.movedim(1, 2)       # [n, 4, 4]
        f = self.volume(x.unsqueeze(1))                           # [n, 2, 2, 3, 4]
        f = F.adaptive_avg_pool3d(f, (2, 1, 2)).squeeze(3).reshape(n, 4, 2)
        g = F.pad(d, (1, 2, 0, 1), value=0.3)                     # [n, 6, 8]
        g = F.avg_pool1d(g, 2).view(n, 3, 8).sum(1)               # [n, 8]
        h = -e.repeat(1, 1, 1).flatten(1).narrow(1, 2, 12)
        return self.fc(torch.cat([f.flatten(1), g, h], 1))


class Frames(nn.Module):
    """Each frame of a sample through the same layers: the batch is merged with another axis."""
    shape = (4, 6)

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        y = x.reshape(-1, 6)
        y = F.relu(self.norm(self.fc1(y)))
        return self.fc2(y).view(x.size(0), 4, 3).mean(1)


MODULES = {
    "mlp": Mlp, "cnn": Cnn, "residual": Residual, "depthwise": Depthwise, "dense": Dense,
    "squeeze_excite": SqueezeExcite, "tied_embedding": TiedEmbedding, "written_attention": WrittenAttention,
    "grouped_norm": GroupedNorm, "padded_shortcut": PaddedShortcut, "called_twice": CalledTwice, "chunk": Chunk,
    "transposed": Transposed, "conv1d": Conv1d, "multihead": Multihead, "encoder": Encoder, "lstm": Lstm,
    "unet": Unet, "instance": Instance, "prelu": Prelu, "sinusoidal": Sinusoidal, "convnext": ConvNext,
    "shuffle": Shuffle, "gpt": Gpt, "vit": Vit, "mixed": Mixed, "frames": Frames,
}


def inputs(kind, batch):
    tokens = getattr(kind, "tokens", None)
    if tokens:
        return torch.randint(0, tokens, (batch,) + kind.shape)
    return torch.randn((batch,) + kind.shape)


def randomise(module):
    """Statistics and norms that are not at their start, so that mixing them up shows."""
    for name, tensor in list(module.named_parameters()) + list(module.named_buffers()):
        if "running_mean" in name:
            tensor.data.normal_(0, 0.3)
        elif "running_var" in name:
            tensor.data.uniform_(0.5, 2)
        elif name.endswith("num_batches_tracked"):
            tensor.data.fill_(3)
        elif "norm" in name or "bn" in name:
            tensor.data.add_(torch.randn_like(tensor) * 0.3)


def save(module, path):
    # The debug records (Python's call stacks) are most of a file; source lines are what the importer reports.
    torch.jit.save(module, path)


def check(folder, models):
    expected = torch.load(os.path.join(folder, "expected.pt"))["tensors"]
    for file in sorted(os.listdir(models)):
        name = file[: -len(".pt")]
        torch.manual_seed(12345)
        module = MODULES[name]()
        state = torch.load(os.path.join(models, file))["state_dict"]
        assert list(state) == list(module.state_dict()), name
        module.load_state_dict(state, strict=True)
        module.eval()
        for batch in (1, 3):
            with torch.no_grad():
                output = module(expected[f"{name}/input{batch}"])
            assert torch.allclose(output, expected[f"{name}/output{batch}"], atol=1e-5), name
        for key, value in module.state_dict().items():
            assert not key.endswith("num_batches_tracked") or value.item() == 3, name


def main():
    if sys.argv[1] == "--check":
        return check(*sys.argv[2:])
    suffix = "-" + sys.argv[2] if sys.argv[1] == "--as" else ""
    folder, *chosen = sys.argv[3 if suffix else 1:]
    os.makedirs(folder, exist_ok=True)
    tensors, meta = {}, {}
    for number, (name, kind) in enumerate(MODULES.items()):
        torch.manual_seed(number)
        module = kind()
        randomise(module)
        module.eval()
        for batch in (1, 3):
            x = inputs(kind, batch)
            tensors[f"{name}/input{batch}"] = x
            tensors[f"{name}/output{batch}"] = module(x).detach().clone()
        meta[name + "/state"] = ";".join(f"{key}:{','.join(map(str, value.shape))}"
                                         for key, value in module.state_dict().items())
        if chosen and name not in chosen:
            continue
        save(torch.jit.script(module), os.path.join(folder, f"{name}.script{suffix}.pt"))
        save(torch.jit.trace(module, inputs(kind, 1), check_trace=False), os.path.join(folder, f"{name}.trace{suffix}.pt"))
    if suffix:
        return
    torch.save({"tensors": tensors, "meta": meta}, os.path.join(folder, "expected.pt"))


if __name__ == "__main__":
    main()
