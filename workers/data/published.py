"""The published splits of few-shot image benchmarks, by the names of their classes."""

from collections.abc import Iterable

from metaloom.workers.data.splits import Lists

# The 20 superclasses of CIFAR-100, of 5 classes each (Krizhevsky 2009).
CIFAR_SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {name: group for group, names in CIFAR_SUPERCLASSES.items() for name in names.split()}
# CIFAR-FS: Bertinetto et al. 2019, https://arxiv.org/abs/1805.08136; 64, 16 and 20 classes.
_CIFAR_FS_VALIDATION = """
    beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea shark
    television tractor
"""
_CIFAR_FS_TEST = """
    baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper table
    telephone wardrobe whale woman worm
"""
# FC100: Oreshkin et al. 2018, https://arxiv.org/abs/1805.10123; 12, 4 and 4 superclasses.
_FC100_VALIDATION = "large_carnivores large_omnivores_and_herbivores non-insect_invertebrates small_mammals"
_FC100_TEST = "aquatic_mammals insects medium_mammals people"
# mini-ImageNet: Ravi and Larochelle 2017, https://openreview.net/forum?id=rJY0-Kcll; 64, 16 and 20 WordNet ids.
_MINI_TRAIN = """
    n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367 n02089867 n02091831
    n02101006 n02105505 n02108089 n02108551 n02108915 n02111277 n02113712 n02120079 n02165456 n02457408
    n02606052 n02687172 n02747177 n02795169 n02823428 n02966193 n03017168 n03047690 n03062245 n03207743
    n03220513 n03337140 n03347037 n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605
    n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548 n04296562 n04389033
    n04435653 n04443257 n04509417 n04515003 n04596742 n04604644 n04612504 n06794110 n07584110 n07697537
    n07747607 n09246464 n13054560 n13133613
"""
_MINI_VALIDATION = """
    n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792 n03075370 n03417042
    n03535780 n03584254 n03770439 n03773504 n03980874 n09256479
"""
_MINI_TEST = """
    n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486 n02443484 n02871525
    n03127925 n03146219 n03272010 n03544143 n03775546 n04146614 n04149813 n04418357 n04522168 n07613480
"""


def cifar_fs() -> Lists:
    """Return CIFAR-FS's classes of each split."""
    return _rest(SUPERCLASS_OF, _CIFAR_FS_VALIDATION.split(), _CIFAR_FS_TEST.split())


def fc100() -> Lists:
    """Return FC100's classes of each split: whole superclasses."""
    validation, test = (
        [name for group in groups.split() for name in CIFAR_SUPERCLASSES[group].split()]
        for groups in (_FC100_VALIDATION, _FC100_TEST)
    )
    return _rest(SUPERCLASS_OF, validation, test)


def mini_imagenet() -> Lists:
    """Return mini-ImageNet's classes of each split."""
    return {"train": _MINI_TRAIN.split(), "validation": _MINI_VALIDATION.split(), "test": _MINI_TEST.split()}


def cub(folders: Iterable[str]) -> Lists:
    """Return the classes of each split of CUB-200-2011, from its folders, such as ``001.Black_footed_Albatross``.

    Chen et al. 2019, https://arxiv.org/abs/1904.04232: in the order of their numbers every second class is of the
    training, and the others go to validation and test in turn; 100, 50 and 50.
    """
    lists: Lists = {"train": [], "validation": [], "test": []}
    for place, name in enumerate(sorted(folders)):
        lists["train" if place % 2 == 0 else "validation" if place % 4 == 1 else "test"].append(name)
    return lists


def _rest(names: Iterable[str], validation: list[str], test: list[str]) -> Lists:
    held_out = {*validation, *test}
    train = sorted(name for name in names if name not in held_out)
    return {"train": train, "validation": sorted(validation), "test": sorted(test)}
