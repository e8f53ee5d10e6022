"""The builders' networks as Python modules, written after torchvision 0.14 and PyTorch's own modules.

builders_in_python.py FOLDER: for every case below reads FOLDER/<case>.pt (a model file) and FOLDER/<case>.input.pt,
asks that the state_dict has the module's names, in the module's order, loads it strictly, runs it in evaluation mode and
writes FOLDER/<case>.output.pt. Where torchvision can be imported and has the network, its own module must load the same
state_dict strictly, with the names in the same order, and give the same values.
"""

import os
import sys

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 5


def norm2d(kind, channels):
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(4, channels)
    if kind == "layer":
        return ChannelNorm(channels)
    return nn.Identity()


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Vgg(nn.Module):
    plans = {
        11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
        13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
        16: [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
        19: [64, 64, "M", 128, 128, "M"] + [256] * 4 + ["M"] + [512] * 4 + ["M"] + [512] * 4 + ["M"],
    }

    def __init__(self, depth, width, norm, dense, pools=5):
        super().__init__()
        layers, channels, pooled = [], 3, 0
        for item in self.plans[depth]:
            if item == "M":
                layers.append(nn.MaxPool2d(2, 2) if pooled < pools else nn.Identity())
                pooled += 1
                continue
            out = int(item * width)
            layers.append(nn.Conv2d(channels, out, 3, padding=1))
            if norm != "none":
                layers.append(norm2d(norm, out))
            layers.append(nn.ReLU(True))
            channels = out
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7) if dense else (1, 1))
        hidden = int(4096 * width)
        if dense:
            self.classifier = nn.Sequential(
                nn.Linear(channels * 49, hidden),
                nn.ReLU(True),
                nn.Dropout(),
                nn.Linear(hidden, hidden),
                nn.ReLU(True),
                nn.Dropout(),
                nn.Linear(hidden, CLASSES),
            )
        else:
            self.classifier = nn.Sequential(nn.Linear(channels, CLASSES))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class ZeroPadded(nn.Module):
    def __init__(self, stride, extra):
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class Block(nn.Module):
    def __init__(self, channels, width, stride, bottleneck, norm, pad):
        super().__init__()
        bias = norm == "none"
        out = 4 * width if bottleneck else width
        if bottleneck:
            sizes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            sizes = [(channels, width, 3, stride), (width, width, 3, 1)]
        self.count = len(sizes)
        for i, (a, b, kernel, step) in enumerate(sizes, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=bias))
            self.add_module(f"bn{i}", norm2d(norm, b))
        self.downsample = None
        if stride != 1 or channels != out:
            if pad:
                self.downsample = ZeroPadded(stride, out - channels)
            else:
                self.downsample = nn.Sequential(
                    nn.Conv2d(channels, out, 1, stride, bias=bias), norm2d(norm, out)
                )

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, blocks, width, norm, bottleneck=False, large=False, pad=False):
        super().__init__()
        self.large = large
        size, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(3, width, size, stride, size // 2, bias=norm == "none")
        self.bn1 = norm2d(norm, width)
        channels = width
        self.stages = len(blocks)
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                step = 2 if stage > 0 and block == 0 else 1
                layers.append(Block(channels, width << stage, step, bottleneck, norm, pad))
                channels = (4 if bottleneck else 1) * (width << stage)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


class EncoderBlock(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, 1e-6)
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim, 1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, dim), nn.Dropout(0.0)
        )

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    def __init__(self, positions, dim, depth, heads, hidden):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, positions, dim))
        self.layers = nn.Sequential()
        for i in range(depth):
            self.layers.add_module(f"encoder_layer_{i}", EncoderBlock(dim, heads, hidden))
        self.ln = nn.LayerNorm(dim, 1e-6)

    def forward(self, x):
        return self.ln(self.layers(x + self.pos_embedding))


class VisionTransformer(nn.Module):
    def __init__(self, size, patch, dim, depth, heads, hidden, token):
        super().__init__()
        positions = (size // patch) ** 2
        self.token = token
        if token:
            self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.conv_proj = nn.Conv2d(3, dim, patch, patch)
        self.encoder = Encoder(positions + (1 if token else 0), dim, depth, heads, hidden)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(dim, CLASSES))

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        if self.token:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.encoder(x)
        return self.heads(x[:, 0] if self.token else x.mean(1))


class CharTransformer(nn.Module):
    def __init__(self, window, dim, depth, heads, hidden, tied):
        super().__init__()
        self.positions = nn.Parameter(torch.empty(window, dim))
        self.embedding = nn.Embedding(CLASSES, dim)
        layer = nn.TransformerEncoderLayer(
            dim, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(dim))
        if not tied:
            self.output = nn.Linear(dim, CLASSES)
        self.tied = tied

    def forward(self, x):
        mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        h = self.encoder(self.embedding(x.long()) + self.positions, mask)[:, -1]
        return F.linear(h, self.embedding.weight) if self.tied else self.output(h)


class CharLstm(nn.Module):
    def __init__(self, embedding, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, CLASSES)

    def forward(self, x):
        return self.output(self.lstm(self.embedding(x.long()))[0][:, -1])


class ConvNorm(nn.Sequential):
    def __init__(self, channels, out, kernel=3, stride=1, groups=1):
        super().__init__(
            nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU6(True),
        )


class InvertedResidual(nn.Module):
    def __init__(self, channels, out, stride, expansion):
        super().__init__()
        self.same = stride == 1 and channels == out
        hidden = channels * expansion
        layers = [] if expansion == 1 else [ConvNorm(channels, hidden, 1)]
        layers += [
            ConvNorm(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv(x) if self.same else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self, width, large):
        super().__init__()

        def rounded(value):
            new = max(8, int(value + 4) // 8 * 8)
            return new + 8 if new < 0.9 * value else new

        channels = rounded(32 * width)
        layers = [ConvNorm(3, channels, 3, 2 if large else 1)]
        for t, c, n, s in [
            (1, 16, 1, 1),
            (6, 24, 2, 2 if large else 1),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]:
            for i in range(n):
                layers.append(InvertedResidual(channels, rounded(c * width), s if i == 0 else 1, t))
                channels = rounded(c * width)
        last = rounded(1280 * max(1.0, width))
        layers.append(ConvNorm(channels, last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, CLASSES))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class DenseBlock(nn.ModuleDict):
    def __init__(self, channels, growth, count):
        super().__init__()
        for i in range(count):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth))

    def forward(self, x):
        found = [x]
        for layer in self.values():
            found.append(layer(torch.cat(found, 1)))
        return torch.cat(found, 1)


class DenseNet(nn.Module):
    def __init__(self, growth, blocks, large):
        super().__init__()
        channels = 2 * growth
        self.features = nn.Sequential()
        if large:
            self.features.add_module("conv0", nn.Conv2d(3, channels, 7, 2, 3, bias=False))
            self.features.add_module("norm0", nn.BatchNorm2d(channels))
            self.features.add_module("relu0", nn.ReLU(True))
            self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        else:
            self.features.add_module("conv0", nn.Conv2d(3, channels, 3, 1, 1, bias=False))
        for i, count in enumerate(blocks, 1):
            self.features.add_module(f"denseblock{i}", DenseBlock(channels, growth, count))
            channels += count * growth
            if i < len(blocks):
                transition = nn.Sequential()
                transition.add_module("norm", nn.BatchNorm2d(channels))
                transition.add_module("relu", nn.ReLU(True))
                transition.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
                transition.add_module("pool", nn.AvgPool2d(2, 2))
                self.features.add_module(f"transition{i}", transition)
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))


# The keys are the cases of builders_test.cpp.
cases = {
    "vgg11": lambda: Vgg(11, 0.125, "none", False),
    "vgg13_small_image": lambda: Vgg(13, 0.125, "layer", False, pools=3),
    "vgg16_batch_dense": lambda: Vgg(16, 0.0625, "batch", True),
    "vgg19_group": lambda: Vgg(19, 0.125, "group", False),
    "resnet20": lambda: ResNet([3, 3, 3], 8, "batch"),
    "resnet20_pad": lambda: ResNet([3, 3, 3], 7, "batch", pad=True),
    "resnet32_none": lambda: ResNet([5, 5, 5], 8, "none"),
    "resnet56_group_pad": lambda: ResNet([9, 9, 9], 4, "group", pad=True),
    "resnet18": lambda: ResNet([2, 2, 2, 2], 8, "batch", large=True),
    "resnet34_layer_small": lambda: ResNet([3, 4, 6, 3], 8, "layer"),
    "resnet18_full": lambda: ResNet([2, 2, 2, 2], 64, "batch", large=True),
    "resnet50": lambda: ResNet([3, 4, 6, 3], 8, "batch", bottleneck=True, large=True),
    "vit": lambda: VisionTransformer(16, 4, 12, 2, 3, 20, True),
    "vit_mean": lambda: VisionTransformer(16, 8, 8, 1, 2, 12, False),
    "transformer": lambda: CharTransformer(7, 12, 2, 3, 20, False),
    "transformer_tied": lambda: CharTransformer(4, 8, 1, 2, 12, True),
    "lstm": lambda: CharLstm(3, 6, 2),
    "mobilenet": lambda: MobileNet(0.25, False),
    "mobilenet_large": lambda: MobileNet(0.5, True),
    "densenet": lambda: DenseNet(4, [2, 3, 2], False),
    "densenet_large": lambda: DenseNet(6, [1, 2, 1, 1], True),
}


def torchvisions():
    """The cases that torchvision has itself, by name; empty where it is not installed."""
    try:
        from torchvision import models
        from torchvision.models.resnet import BasicBlock
        from torchvision.models.vgg import make_layers
    except ImportError:
        return {}

    def vgg16():
        plan = [item if item == "M" else item // 16 for item in Vgg.plans[16]]
        model = models.VGG(make_layers(plan, batch_norm=True), num_classes=CLASSES, init_weights=False)
        for index, old, new in ((0, 512 * 49, 32 * 49), (3, 4096, 256), (6, 4096, 256)):  # it knows full width only
            assert model.classifier[index].in_features == old
            model.classifier[index] = nn.Linear(new, CLASSES if index == 6 else 256)
        return model

    return {
        "vgg16_batch_dense": vgg16,
        "resnet18_full": lambda: models.ResNet(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES),
        "vit": lambda: models.VisionTransformer(16, 4, 2, 3, 12, 20, num_classes=CLASSES),
        "mobilenet_large": lambda: models.MobileNetV2(num_classes=CLASSES, width_mult=0.5),
        "densenet_large": lambda: models.DenseNet(6, (1, 2, 1, 1), 12, num_classes=CLASSES),
    }


def check_torchvisions(name, model, state, x, y):
    model = model.eval()
    if list(model.state_dict()) != list(state):
        sys.exit(f"{name}: ours {list(state)}\ntorchvision's {list(model.state_dict())}")
    model.load_state_dict(state, strict=True)
    difference = (model.double()(x.double()) - y).abs().max() / y.abs().max()
    if not difference < 1e-10:
        sys.exit(f"{name}: torchvision's values differ by {difference:.1e} of the largest")
    print(f"{name}: as torchvision's")


if __name__ == "__main__":
    folder = sys.argv[1]
    torch.set_num_threads(1)
    twins = torchvisions()
    for name, make in cases.items():
        model = make().eval()
        state = torch.load(os.path.join(folder, name + ".pt"))["state_dict"]
        ours, theirs = list(state), list(model.state_dict())
        if name.startswith("transformer"):  # we list a block's modules in the order they run
            ours, theirs = sorted(ours), sorted(theirs)
        if ours != theirs:
            sys.exit(f"{name}: ours {ours}\nPython's {theirs}")
        model.load_state_dict(state, strict=True)
        x = torch.load(os.path.join(folder, name + ".input.pt"))["tensors"]["x"]
        with torch.no_grad():
            y = model.double()(x.double())
            if name in twins:
                check_torchvisions(name, twins[name](), state, x, y)
        torch.save({"tensors": {"y": y}, "meta": {}}, os.path.join(folder, name + ".output.pt"))
