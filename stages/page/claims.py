"""What the report says, word for word, as far as something here can be laid beside it."""

from typing import NamedTuple

REPORT_PARAMETERS = 82_958_979
"""Of the network of the code behind the report, which is `models.report`."""

HO_ET_AL = {1: 2, 2: 4, 3: 4, 4: 6, 5: 2, 6: 4, 7: 4, 10: 7, 11: 7, 13: 11, 14: 14}
"""The number in Ho et al. 2020 of each of the report's equations that has one."""


class Claim(NamedTuple):
    """Words of the report, and where they stand in it."""

    words: str
    where: str


CLAIMS = {
    "data": Claim("48x48 pixels church images based on the LSUN dataset", "abstract"),
    "epochs": Claim("The results of the model training 150 epochs are shown in figure 3.", "section 2"),
    "diverse": Claim(
        "The samples show churches in different times and weather, which indicates well diversified.", "section 2"
    ),
    "midpoints": Claim("All midpoints (Figure 4) have realistic shape and correct feature of the church.", "section 2"),
    "range": Claim("Their perceptual losses are between 0.29 and 0.32", "section 2"),
    "batches": Claim("which approximate the perceptual losses between the different batch datasets", "section 2"),
    "comparable": Claim(
        "the generated images are comparable to that of the original dataset and are diverse", "section 2"
    ),
    "time": Claim("the sample time cost for every 64 samples is about 8 mins in the RTX3070 laptop", "section 3"),
    "gan": Claim("relatively longer than the time cost of the GAN", "section 3"),
    "one_class": Claim(
        "based on a single-class dataset, which makes the model only generate the image in one class", "section 3"
    ),
}
