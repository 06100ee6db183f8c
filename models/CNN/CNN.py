"""ResNet-20 for images of 32 x 32 pixels (He et al., 2016, section 4.2), with 1 x 1 convolutions as shortcuts.

x (b,3,32,32) ► conv 16 ► 3 blocks of 16 at 32x32 ► 3 of 32 at 16x16 ► 3 of 64 at 8x8 ► mean over space: f (b,64)
f (b,64) ► fc: logits f θᵀ + b

The parameters have the names of `cifar10_resnet20` in chenyaofo/pytorch-cifar-models, so that its weights load as they
are. The paper's classifier has one output: sigmoid(logit) is the probability of class 1.
"""

from torch import Tensor, nn
from torch.nn.functional import relu

FEATURES = 64


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), with two 3 x 3 convolutions."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet20(nn.Module):
    """Logits (b, classes) of images (b,3,32,32); classes = 1 is the paper's binary classifier."""

    def __init__(self, classes=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, FEATURES, stride=2)
        self.fc = nn.Linear(FEATURES, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer f, (b,64), of images (b,3,32,32)."""
        x = relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def _stage(channels_in, channels, stride):
    """Three blocks; the first one changes the width and, by its stride, the resolution."""
    return nn.Sequential(BasicBlock(channels_in, channels, stride), *(BasicBlock(channels, channels, 1) for _ in "23"))
