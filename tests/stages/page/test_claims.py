"""What the page says of the report, against the report itself."""

import re

import pytest
import torch
from support import REPOSITORY

from ddpm.config import parse
from ddpm.diffusion import process
from ddpm.diffusion.unet import UNet, UNetConfig
from stages.kit.params import read_params
from stages.page.claims import CLAIMS, HO_ET_AL, REPORT_PARAMETERS
from stages.shared.ranking import REPORT_BEST_SIX

REPORT = REPOSITORY.parent / "shared" / "report.md"
report = pytest.mark.skipif(not REPORT.exists(), reason="no copy of the report on this machine")
SECTIONS = {"abstract": "ABSTRACT", "section 2": "2 RESULTS", "section 3": "3 LIMITATIONS", "end": "BONUSES"}


def section_of(text: str, words: str) -> str:
    starts = {name: text.index(f"\n{heading}\n") for name, heading in SECTIONS.items()}
    place = text.index(words)
    return max((start, name) for name, start in starts.items() if start < place)[1]


@report
@pytest.mark.parametrize("name", CLAIMS)
def test_quotations_are_the_report_s_words_and_stand_where_they_are_said_to(name: str) -> None:
    assert section_of(REPORT.read_text(encoding="utf-8"), CLAIMS[name].words) == CLAIMS[name].where


@report
def test_numbers_said_to_be_the_report_s_stand_in_it() -> None:
    """The six best, and what the templates say outside of quotations: 64 samples, 8 minutes, the graphics card."""
    text = REPORT.read_text(encoding="utf-8")
    assert "between {} and {}".format(*REPORT_BEST_SIX) in text
    assert "between 64 samples" in text
    assert "every 64 samples is about 8 mins in the RTX3070 laptop" in text
    assert "six samples with the lowest perceptual loss" in text


def test_parameters_of_the_report_s_network() -> None:
    network = parse(UNetConfig, read_params().mapping("models", "report", "network"), "models.report.network")
    with torch.device("meta"):
        assert sum(each.numel() for each in UNet(network, 48, 0).parameters()) == REPORT_PARAMETERS


def test_ho_et_al_s_numbers_are_those_of_the_code() -> None:
    """In square brackets in the list of equations of `ddpm.diffusion.process`."""
    found = {}
    for entry in re.split(r"^(?=    \(\d+\))", process.__doc__ or "", flags=re.M)[1:]:
        if theirs := re.search(r"\[(\d+)\]", entry):
            found[int(entry.strip()[1:].partition(")")[0])] = int(theirs[1])
    assert found == HO_ET_AL


def test_each_claim_is_told(build) -> None:
    for name in ("index.html", "page.md"):
        text = (build() / name).read_text()
        assert [claim.words for claim in CLAIMS.values() if claim.words not in text] == [], name
        assert {int(number) for number in re.findall(r"Figure (\d)\.", text)} == {1, 2, 3, 4, 5, 6, 7, 8}, name
